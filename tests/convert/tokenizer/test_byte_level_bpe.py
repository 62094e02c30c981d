"""Byte-level BPE vocabularies: tokens, types, merges, the pre-tokenizer found by measuring."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Regex, normalizers, pre_tokenizers
from tokenizers.processors import TemplateProcessing

from mofa_gguf.convert.errors import TokenizerError
from mofa_gguf.convert.tokenizer import (
    TokenizerMismatch,
    TokenType,
    Vocabulary,
    build_vocabulary,
    check_vocabulary,
    pretokenizer,
)
from mofa_gguf.convert.tokenizer.vocabulary_file import write_vocabulary_file
from mofa_gguf.engine.errors import LibraryUnavailable
from mofa_gguf.engine.tokens.vocab_file import VocabFile
from tests.convert.tokenizer.makers import (
    LLAMA3,
    QWEN2,
    TEKKEN,
    by_regex,
    gpt2_splitting,
    plain,
    train_byte_level,
    write_json,
)

CONTRACTION = "(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
GPT4O = (
    TEKKEN.replace(r"\p{M}]+|", r"\p{M}]+" + CONTRACTION + "|", 1)
    .replace(r"\p{M}]*|", r"\p{M}]*" + CONTRACTION + "|", 1)
    .replace(r"|\p{N}|", r"|\p{N}{1,3}|")
)


def build(tokenizer: Any, folder: Path, *, n_vocab: int | None = None, **more: Any) -> Vocabulary:
    tokenizer.save(str(folder / "tokenizer.json"))
    rows = n_vocab or tokenizer.get_vocab_size()
    return build_vocabulary(folder, config={}, n_vocab=rows, **more)


def edit(folder: Path, change: Any) -> None:
    path = folder / "tokenizer.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    change(document)
    path.write_text(json.dumps(document), encoding="utf-8")


@pytest.mark.parametrize(
    ("pre_tokenizer", "model", "expected", "n_limited"),
    [
        (gpt2_splitting(), {}, "gpt-2", 0),
        (gpt2_splitting(digits=True), {}, "smollm", 0),
        (by_regex(QWEN2), {}, "qwen2", 0),
        (by_regex(LLAMA3), {}, "dbrx", 0),
        (by_regex(LLAMA3), {"ignore_merges": True}, "llama-bpe", 0),
        (by_regex(TEKKEN), {"ignore_merges": True}, "tekken", 3),
        (by_regex(GPT4O), {}, "gpt-4o", 3),
        (
            pre_tokenizers.Sequence(
                [
                    pre_tokenizers.Punctuation("contiguous"),
                    pre_tokenizers.ByteLevel(add_prefix_space=False),
                    pre_tokenizers.Digits(individual_digits=False),
                    pre_tokenizers.Split(Regex("[0-9][0-9][0-9]"), "isolated"),
                ]
            ),
            {},
            "falcon",
            0,
        ),
    ],
    ids=[
        "gpt-2",
        "smollm",
        "qwen2",
        "llama 3",
        "llama 3 ignoring merges",
        "tekken",
        "gpt-4o",
        "falcon",
    ],
)
def test_the_pre_tokenizer_is_found_by_how_it_splits(
    pre_tokenizer: Any, model: dict[str, Any], expected: str, n_limited: int, tmp_path: Path
) -> None:
    vocabulary = build(train_byte_level(pre_tokenizer, **model), tmp_path)
    assert vocabulary.kind == "bpe"
    assert vocabulary.pre_tokenizer == expected
    agreement = vocabulary.agreement
    # llama.cpp leaves combining marks out of some pre-tokenizers' classes of letters.
    assert agreement.n_agree + agreement.n_limited == agreement.n_texts
    assert agreement.n_limited == n_limited
    assert vocabulary.warnings[0] == (
        "no configuration names a token that ends an answer; generations stop at max_tokens"
    )


def test_tokens_types_and_merges_are_those_of_the_checkpoint(
    smollm_like: Any, tmp_path: Path
) -> None:
    data = plain(build(smollm_like, tmp_path).metadata())
    document = json.loads(smollm_like.to_str())
    vocabulary = document["model"]["vocab"]

    assert data["tokenizer.ggml.model"] == "gpt2"
    assert data["tokenizer.ggml.tokens"] == sorted(vocabulary, key=vocabulary.__getitem__)
    types = data["tokenizer.ggml.token_type"]
    assert types[:3] == [TokenType.CONTROL] * 3
    assert set(types[3:]) == {TokenType.NORMAL}
    assert data["tokenizer.ggml.merges"] == [" ".join(m) for m in document["model"]["merges"]]


def test_merges_may_be_written_as_strings(smollm_like: Any, tmp_path: Path) -> None:
    paired = plain(build(smollm_like, tmp_path).metadata())

    def to_strings(document: Any) -> None:
        document["model"]["merges"] = [" ".join(pair) for pair in document["model"]["merges"]]

    edit(tmp_path, to_strings)
    n_vocab = smollm_like.get_vocab_size()
    joined = plain(build_vocabulary(tmp_path, config={}, n_vocab=n_vocab).metadata())
    assert joined == paired


def test_added_tokens_are_control_tokens_or_text(gpt2_like: Any, tmp_path: Path) -> None:
    tokenizer = type(gpt2_like).from_str(gpt2_like.to_str())
    tokenizer.add_special_tokens(["<tool>"])
    tokenizer.add_tokens([AddedToken("        ", normalized=True), "<|looks_special|>"])
    vocabulary = build(tokenizer, tmp_path)
    data = plain(vocabulary.metadata())
    kinds = dict(zip(data["tokenizer.ggml.tokens"], data["tokenizer.ggml.token_type"], strict=True))
    assert kinds["<tool>"] == TokenType.CONTROL
    assert kinds["        "] == TokenType.USER_DEFINED
    assert kinds["<|looks_special|>"] == TokenType.CONTROL
    assert vocabulary.agreement.complete

    path = tmp_path / "v.gguf"
    write_vocabulary_file(path, vocabulary.metadata(), pre_tokenizer=vocabulary.pre_tokenizer)
    tool = tokenizer.token_to_id("<tool>")
    with VocabFile(path) as file:
        assert tool not in file.vocab.tokenize("say <tool> please")
        assert tool in file.vocab.tokenize("say <tool> please", parse_special=True)
        assert file.vocab.tokenize("a        b") == vocabulary.reference.encode("a        b")


def test_rows_of_the_embedding_without_a_token_become_unused_placeholders(
    gpt2_like: Any, tmp_path: Path
) -> None:
    n_tokens = gpt2_like.get_vocab_size()
    vocabulary = build(gpt2_like, tmp_path, n_vocab=n_tokens + 28)
    data = plain(vocabulary.metadata())
    assert len(data["tokenizer.ggml.tokens"]) == vocabulary.n_tokens == n_tokens + 28
    assert data["tokenizer.ggml.tokens"][-1] == f"[PAD{n_tokens + 27}]"
    assert data["tokenizer.ggml.token_type"][-28:] == [TokenType.UNUSED] * 28
    assert vocabulary.agreement.complete


def test_a_vocabulary_larger_than_the_embedding_is_refused(gpt2_like: Any, tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match="lies beyond the model's 600 embeddings"):
        build(gpt2_like, tmp_path, n_vocab=600)


def test_added_tokens_without_an_embedding_are_left_out_with_a_warning(
    gpt2_like: Any, tmp_path: Path
) -> None:
    tokenizer = type(gpt2_like).from_str(gpt2_like.to_str())
    tokenizer.add_special_tokens(["<never trained>"])
    write_json(tmp_path, "tokenizer_config.json", {"eos_token": "<never trained>"})
    vocabulary = build(tokenizer, tmp_path, n_vocab=gpt2_like.get_vocab_size())
    assert any("<never trained>" in warning for warning in vocabulary.warnings)
    assert "tokenizer.ggml.eos_token_id" not in vocabulary.metadata()


def test_two_ids_with_one_text_do_not_reach_llama_cpp(gpt2_like: Any, tmp_path: Path) -> None:
    # llama.cpp ends the process on such a file. A NUL ends a text there, too.
    build(gpt2_like, tmp_path)
    n_tokens = gpt2_like.get_vocab_size()

    def add_twins(document: Any) -> None:
        for offset, text in enumerate(("the\0one", "the\0two")):
            entry = {"id": n_tokens + offset, "content": text, "special": True}
            flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
            document["added_tokens"].append({**entry, **flags})

    edit(tmp_path, add_twins)
    vocabulary = build_vocabulary(tmp_path, config={}, n_vocab=n_tokens + 2)
    texts = plain(vocabulary.metadata())["tokenizer.ggml.tokens"]
    assert len(set(texts)) == len(texts)
    assert any("cannot be reached" in warning for warning in vocabulary.warnings)
    assert vocabulary.agreement.complete


def test_unicode_normalization_alone_is_a_warning(tmp_path: Path) -> None:
    tokenizer = train_byte_level(gpt2_splitting(), normalizer=normalizers.NFC())
    vocabulary = build(tokenizer, tmp_path)
    agreement = vocabulary.agreement
    assert (agreement.n_normalized, agreement.n_unexplained) == (1, 0)
    assert agreement.first_differences[0].cause == "Unicode normalization"
    assert "decomposed accents" in vocabulary.warnings[-1]


def test_splitting_that_llama_cpp_does_not_know_is_refused_with_the_first_differences(
    tmp_path: Path,
) -> None:
    tokenizer = train_byte_level(by_regex(r"\p{L}{1,5}|[^\p{L}]{1,3}"))
    with pytest.raises(TokenizerMismatch, match="the tokenizer gives") as caught:
        build(tokenizer, tmp_path)
    assert caught.value.agreement.n_unexplained > 10
    assert caught.value.agreement.first_differences[0].cause is None


def test_a_mismatch_can_be_allowed_and_is_then_a_warning(tmp_path: Path) -> None:
    tokenizer = train_byte_level(by_regex(r"\p{L}{1,5}|[^\p{L}]{1,3}"))
    vocabulary = build(tokenizer, tmp_path, allow_mismatch=True)
    assert vocabulary.agreement.n_unexplained > 10
    assert any("unexplained" in warning for warning in vocabulary.warnings)


def test_truncation_padding_and_dropout_do_not_disturb_the_reference(tmp_path: Path) -> None:
    tokenizer = train_byte_level(gpt2_splitting(), dropout=0.9)
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=10**9)
    assert build(tokenizer, tmp_path).agreement.complete


def test_vocab_json_and_merges_txt_are_read_as_gpt2(gpt2_like: Any, tmp_path: Path) -> None:
    gpt2_like.model.save(str(tmp_path))
    write_json(tmp_path, "tokenizer_config.json", {"eos_token": {"content": "<|stop|>"}})
    n_tokens = gpt2_like.get_vocab_size()
    vocabulary = build_vocabulary(tmp_path, config={}, n_vocab=n_tokens)
    data = plain(vocabulary.metadata())
    assert (vocabulary.pre_tokenizer, vocabulary.agreement.complete) == ("gpt-2", True)
    stop = gpt2_like.token_to_id("<|stop|>")
    assert data["tokenizer.ggml.eos_token_id"] == stop
    assert data["tokenizer.ggml.token_type"][stop] == TokenType.CONTROL


def test_check_vocabulary_notices_a_file_with_another_pre_tokenizer(
    smollm_like: Any, tmp_path: Path
) -> None:
    tokenizer = type(smollm_like).from_str(smollm_like.to_str())
    tokenizer.post_processor = TemplateProcessing(
        single="<|begin|> $A", special_tokens=[("<|begin|>", 0)]
    )
    vocabulary = build(tokenizer, tmp_path)
    path = tmp_path / "v.gguf"
    write_vocabulary_file(path, vocabulary.metadata(), pre_tokenizer="bloom")
    agreement = check_vocabulary(path, vocabulary, natively=True)
    assert not agreement.acceptable
    first = agreement.first_differences[0]
    assert list(first.expected) == vocabulary.reference.encode(first.text)
    assert "differ" in agreement.summary()


def test_a_build_of_llama_cpp_that_does_not_load_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_file: object, **_how: object) -> None:
        raise LibraryUnavailable("no library 'llama' found", "reinstall it")

    monkeypatch.setattr(pretokenizer, "VocabFile", gone)
    with pytest.raises(TokenizerError, match=r"llama\.cpp does not load .*; reinstall it"):
        build(train_byte_level(by_regex(QWEN2)), tmp_path)

"""What a file keeps of the checkpoint's tokenizer, so that text is tokenized exactly by it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, normalizers

from mofa_gguf.convert.tokenizer import Kept, Vocabulary, build_vocabulary, check_vocabulary
from mofa_gguf.convert.tokenizer.battery import FULL
from mofa_gguf.convert.tokenizer.rare import rare_texts
from mofa_gguf.convert.tokenizer.vocabulary_file import write_vocabulary_file
from mofa_gguf.engine.tokens.kept_tokenizer import KEPT_KEY
from mofa_gguf.engine.tokens.normalizing import FORM_KEY
from mofa_gguf.engine.tokens.vocab_file import VocabFile
from tests.convert.tokenizer.makers import (
    QWEN2,
    as_hugging_face,
    by_regex,
    gpt2_splitting,
    plain,
    train_byte_level,
    unigram_json,
    write_json,
)

HANGUL = "한국어 텍스트를 나누다, \u1112\u1161\u11ab"
HARD = [item.text for item in FULL] + [item.text for item in rare_texts(())] + [HANGUL]


def build(folder: Path, *, n_vocab: int = 960, **more: Any) -> Vocabulary:
    return build_vocabulary(folder, config={}, n_vocab=n_vocab, **more)


def written(vocabulary: Vocabulary, folder: Path) -> Path:
    path = folder / "v.gguf"
    metadata = vocabulary.metadata()
    write_vocabulary_file(path, metadata, pre_tokenizer=vocabulary.pre_tokenizer)
    return path


def check_exact(vocabulary: Vocabulary, folder: Path, texts: list[str] = HARD) -> None:
    """The file gives the checkpoint's own tokens on every text."""
    path = written(vocabulary, folder)
    assert check_vocabulary(path, vocabulary).complete
    with VocabFile(path) as file:
        for text in texts:
            assert file.vocab.tokenize(text) == vocabulary.reference.encode(text), text


def test_where_llama_cpp_agrees_nothing_is_kept(gpt2_like: Any, tmp_path: Path) -> None:
    gpt2_like.save(str(tmp_path / "tokenizer.json"))
    vocabulary = build(tmp_path)
    assert vocabulary.kept is Kept.NOTHING
    assert not {KEPT_KEY, FORM_KEY} & plain(vocabulary.metadata()).keys()
    check_exact(vocabulary, tmp_path)


def test_where_only_unicode_normalization_is_missing_the_file_names_its_form(
    tmp_path: Path,
) -> None:
    tokenizer = train_byte_level(by_regex(QWEN2), normalizer=normalizers.NFC())
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    vocabulary = build(tmp_path)
    assert vocabulary.kept is Kept.NORMALIZER
    data = plain(vocabulary.metadata())
    assert data[FORM_KEY] == "NFC"
    assert KEPT_KEY not in data
    assert any("other programs will differ" in warning for warning in vocabulary.warnings)
    check_exact(vocabulary, tmp_path)


def test_where_more_than_that_is_missing_the_whole_tokenizer_is_kept(tmp_path: Path) -> None:
    steps = [normalizers.NFKC(), normalizers.Lowercase()]
    tokenizer = train_byte_level(gpt2_splitting(), normalizer=normalizers.Sequence(steps))
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    vocabulary = build(tmp_path, allow_mismatch=True)
    assert vocabulary.kept is Kept.TOKENIZER
    own = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    assert json.loads(plain(vocabulary.metadata())[KEPT_KEY]) == own
    assert any("the file keeps the tokenizer" in warning for warning in vocabulary.warnings)
    check_exact(vocabulary, tmp_path)


def test_a_splitting_that_llama_cpp_does_not_know_is_exact_once_it_is_allowed(
    tmp_path: Path,
) -> None:
    tokenizer = train_byte_level(by_regex(r"\p{L}{1,5}|[^\p{L}]{1,3}"))
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    vocabulary = build(tmp_path, allow_mismatch=True)
    assert not vocabulary.agreement.acceptable
    check_exact(vocabulary, tmp_path)


def test_a_wordpiece_tokenizer_is_always_kept(bert_like: Any, tmp_path: Path) -> None:
    bert_like.save(str(tmp_path / "tokenizer.json"))
    vocabulary = build(tmp_path)
    assert vocabulary.kept is Kept.TOKENIZER
    check_exact(vocabulary, tmp_path)
    with VocabFile(written(vocabulary, tmp_path)) as file:
        tokens = file.vocab.tokenize(HANGUL, add_special=True)
    assert tokens == bert_like.encode(HANGUL).ids


def test_a_sentencepiece_tokenizer_that_marks_a_beginning_otherwise_is_kept(
    llama_like: Path, tmp_path: Path
) -> None:
    tokenizer = as_hugging_face(llama_like, metaspace=True)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    vocabulary = build(tmp_path)
    assert (vocabulary.kind, vocabulary.kept) == ("spm", Kept.TOKENIZER)
    check_exact(vocabulary, tmp_path)
    with VocabFile(written(vocabulary, tmp_path)) as file:
        control = file.vocab.tokenize("<s>two words</s> three", parse_special=True)
    assert control == tokenizer.encode("<s>two words</s> three", add_special_tokens=False).ids


def test_a_unigram_tokenizer_is_exact(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(unigram_json(tmp_path), encoding="utf-8")
    check_exact(build(tmp_path), tmp_path)


@pytest.mark.parametrize("flag", ["lstrip", "rstrip", "single_word"])
@pytest.mark.parametrize("special", [True, False], ids=["control", "text"])
def test_added_tokens_that_take_white_space_or_want_a_word_are_exact(
    gpt2_like: Any, tmp_path: Path, flag: str, special: bool
) -> None:
    tokenizer = Tokenizer.from_str(gpt2_like.to_str())
    added = [AddedToken("<new>", special=special, normalized=False, **{flag: True})]
    (tokenizer.add_special_tokens if special else tokenizer.add_tokens)(added)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    vocabulary = build(tmp_path)
    assert vocabulary.kept is Kept.TOKENIZER
    text = "x <new> y<new>z  <new>\n<new> \n end"
    tokenizer.encode_special_tokens = special
    with VocabFile(written(vocabulary, tmp_path)) as file:
        literal = file.vocab.tokenize(text)
        parsed = file.vocab.tokenize(text, parse_special=True)
    assert literal == tokenizer.encode(text, add_special_tokens=False).ids
    tokenizer.encode_special_tokens = False
    assert parsed == tokenizer.encode(text, add_special_tokens=False).ids


def test_a_fine_tune_with_more_tokens_another_template_and_padding_is_exact(
    tmp_path: Path,
) -> None:
    tokenizer = train_byte_level(by_regex(QWEN2), normalizer=normalizers.NFC())
    n_base = tokenizer.get_vocab_size()
    tokenizer.add_special_tokens(["<|turn|>", "<|done|>"])
    tokenizer.add_tokens([AddedToken("<thought>", normalized=False), AddedToken("\u00e9\u00e9")])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    config = {"eos_token": "<|done|>", "chat_template": "{{ messages }}<|turn|>"}
    write_json(tmp_path, "tokenizer_config.json", config)
    vocabulary = build(tmp_path, n_vocab=n_base + 64)
    data = plain(vocabulary.metadata())
    assert len(data["tokenizer.ggml.tokens"]) == n_base + 64
    assert data["tokenizer.ggml.eos_token_id"] == n_base + 1
    assert data["tokenizer.chat_template"] == config["chat_template"]
    spelled = "so <thought>e\u0301e\u0301</thought> \u00e9\u00e9"
    check_exact(vocabulary, tmp_path, [*HARD, spelled])


def test_added_tokens_without_an_embedding_are_not_in_the_kept_tokenizer(
    bert_like: Any, tmp_path: Path
) -> None:
    tokenizer = Tokenizer.from_str(bert_like.to_str())
    n_rows = tokenizer.get_vocab_size()
    tokenizer.add_tokens(["zzyzx"])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    vocabulary = build(tmp_path, n_vocab=n_rows)
    with VocabFile(written(vocabulary, tmp_path)) as file:
        assert max(file.vocab.tokenize("go to zzyzx road")) < n_rows
        assert file.vocab.tokenize("zzyzx") == bert_like.encode("zzyzx").ids[1:-1]


def test_tokens_of_added_tokens_json_that_tokenizer_json_lacks_are_added(
    gpt2_like: Any, tmp_path: Path
) -> None:
    gpt2_like.save(str(tmp_path / "tokenizer.json"))
    n_base = gpt2_like.get_vocab_size()
    write_json(tmp_path, "added_tokens.json", {"<|user|>": n_base, "<tag>": n_base + 1})
    vocabulary = build(tmp_path)
    data = plain(vocabulary.metadata())
    assert data["tokenizer.ggml.tokens"][n_base : n_base + 2] == ["<|user|>", "<tag>"]
    assert vocabulary.reference.encode("a<tag>b").count(n_base + 1) == 1
    check_exact(vocabulary, tmp_path, ["a<tag>b <|user|>"])


def test_added_tokens_have_the_ids_that_the_library_gives_them(
    gpt2_like: Any, tmp_path: Path
) -> None:
    document = json.loads(gpt2_like.to_str())
    n_base = gpt2_like.get_vocab_size()
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    entry = {"id": n_base + 7, "content": "<gap>", "special": False, **flags}
    document["added_tokens"].append(entry)
    write_json(tmp_path, "tokenizer.json", document)
    vocabulary = build(tmp_path)
    assert vocabulary.reference.encode("<gap>") == [n_base]
    assert plain(vocabulary.metadata())["tokenizer.ggml.tokens"][n_base] == "<gap>"
    assert any(f"'<gap>': {n_base}, not {n_base + 7}" in text for text in vocabulary.warnings)


def test_the_same_tokenizer_gives_the_same_metadata_twice(bert_like: Any, tmp_path: Path) -> None:
    bert_like.save(str(tmp_path / "tokenizer.json"))
    again = tmp_path / "again"
    again.mkdir()
    shutil.copyfile(tmp_path / "tokenizer.json", again / "tokenizer.json")
    first, second = build(tmp_path), build(again)
    assert plain(first.metadata()) == plain(second.metadata())

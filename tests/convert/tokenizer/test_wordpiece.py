"""WordPiece vocabularies, from tokenizer.json and from vocab.txt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mofa_gguf.convert.errors import TokenizerError
from mofa_gguf.convert.tokenizer import TokenType, Vocabulary, build_vocabulary
from mofa_gguf.convert.tokenizer.vocabulary_file import write_vocabulary_file
from mofa_gguf.engine.tokens.kept_tokenizer import KEPT_KEY
from mofa_gguf.engine.tokens.vocab_file import VocabFile
from tests.convert.tokenizer.makers import plain, train_wordpiece, write_json


def build(folder: Path, tokenizer: Any) -> Vocabulary:
    return build_vocabulary(folder, config={}, n_vocab=tokenizer.get_vocab_size())


def write_vocab_txt(folder: Path, tokenizer: Any) -> None:
    vocabulary = tokenizer.get_vocab()
    lines = sorted(vocabulary, key=vocabulary.__getitem__)
    (folder / "vocab.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def test_word_starts_get_the_phantom_space_and_continuations_lose_their_mark(
    bert_like: Any, tmp_path: Path
) -> None:
    bert_like.save(str(tmp_path / "tokenizer.json"))
    vocabulary = build(tmp_path, bert_like)
    data = plain(vocabulary.metadata())
    stored = data["tokenizer.ggml.tokens"]
    assert stored[:5] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    for text, token in bert_like.get_vocab().items():
        if token >= 5:
            assert stored[token] == (text[2:] if text.startswith("##") else "▁" + text)
    assert data["tokenizer.ggml.token_type"][:3] == [
        TokenType.CONTROL,
        TokenType.UNKNOWN,
        TokenType.CONTROL,
    ]
    assert data["tokenizer.ggml.model"] == "bert"
    assert data["tokenizer.ggml.normalizer.lowercase"] is True
    assert vocabulary.agreement.acceptable


def test_llama_cpp_puts_cls_before_and_sep_behind(bert_like: Any, tmp_path: Path) -> None:
    bert_like.save(str(tmp_path / "tokenizer.json"))
    vocabulary = build(tmp_path, bert_like)
    path = tmp_path / "v.gguf"
    write_vocabulary_file(path, vocabulary.metadata(), pre_tokenizer="default")
    with VocabFile(path) as file:
        tokens = file.vocab.tokenize("the boat", add_special=True)
    assert tokens == bert_like.encode("the boat").ids


def test_vocab_txt_alone_gives_the_same_vocabulary(bert_like: Any, tmp_path: Path) -> None:
    write_vocab_txt(tmp_path, bert_like)
    from_text = build(tmp_path, bert_like)
    (tmp_path / "vocab.txt").unlink()
    bert_like.save(str(tmp_path / "tokenizer.json"))
    from_json = build(tmp_path, bert_like)
    text_data, json_data = plain(from_text.metadata()), plain(from_json.metadata())
    assert text_data.pop(KEPT_KEY) != json_data.pop(KEPT_KEY)  # not spelled alike
    assert text_data == json_data
    assert from_text.agreement == from_json.agreement


@pytest.mark.parametrize("as_text", [True, False], ids=["vocab.txt", "tokenizer.json"])
def test_a_cased_vocabulary_keeps_case_and_accents(as_text: bool, tmp_path: Path) -> None:
    tokenizer = train_wordpiece(lowercase=False)
    if as_text:
        write_vocab_txt(tmp_path, tokenizer)
        write_json(tmp_path, "tokenizer_config.json", {"do_lower_case": False})
    else:
        tokenizer.save(str(tmp_path / "tokenizer.json"))
    vocabulary = build(tmp_path, tokenizer)
    assert plain(vocabulary.metadata())["tokenizer.ggml.normalizer.lowercase"] is False
    assert vocabulary.agreement.acceptable


def test_vocab_txt_without_the_tokens_of_bert_is_refused(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("[UNK]\n[CLS]\nword\n", encoding="utf-8")
    with pytest.raises(TokenizerError, match=r"has no \[SEP\]"):
        build_vocabulary(tmp_path, config={}, n_vocab=3)


def test_an_unknown_token_that_is_none_is_named_in_a_line(tmp_path: Path) -> None:
    tokenizer = train_wordpiece()
    document = json.loads(tokenizer.to_str())
    document["model"]["unk_token"] = "x" * 10_000
    write_json(tmp_path, "tokenizer.json", document)
    with pytest.raises(TokenizerError, match="the unknown token 'xxx") as caught:
        build(tmp_path, tokenizer)
    assert len(str(caught.value)) < 300


def test_a_wordpiece_without_surrounding_tokens_is_refused(tmp_path: Path) -> None:
    # llama.cpp always adds them, and ends the process where it has no ids for them.
    tokenizer = train_wordpiece()
    tokenizer.post_processor = None
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(TokenizerError, match="a token before and one behind"):
        build(tmp_path, tokenizer)

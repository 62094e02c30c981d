"""Files that hold the model's own tokenizer, or its Unicode form, beside llama.cpp's vocabulary."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

from mofa_gguf.engine.errors import EngineError, ModelFileError
from mofa_gguf.engine.tokens.kept_tokenizer import KEPT_KEY
from mofa_gguf.engine.tokens.normalizing import FORM_KEY
from mofa_gguf.engine.tokens.spellings import TokenMemo, chunks, pattern_of
from mofa_gguf.engine.tokens.vocab import Vocab
from mofa_gguf.engine.tokens.vocab_file import VocabFile
from tests.support.tiny_gguf import SPECIALS, TinyLlama, byte_tokens, write_tiny_llama

COMPOSED, DECOMPOSED = "caf\u00e9 \u00c5", "cafe\u0301 A\u030a"
IM_START, IM_END = 257, 258

Open = Callable[..., Vocab]


@pytest.fixture
def opened(tmp_path: Path) -> Any:
    """Opens the byte vocabulary with more metadata in its file."""
    files: list[VocabFile] = []

    def open_with(**metadata: Any) -> Vocab:
        renamed = {key.replace("__", "."): value for key, value in metadata.items()}
        path = tmp_path / f"{len(files)}.gguf"
        files.append(VocabFile(write_tiny_llama(path, TinyLlama(metadata=renamed))))
        return files[-1].vocab

    yield open_with
    for file in files:
        file.close()


def byte_tokenizer(**special: Any) -> Any:
    """The byte vocabulary for the `tokenizers` library; ``special`` are flags of its specials."""
    vocabulary = {text: token for token, text in enumerate([*byte_tokens(), *SPECIALS])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(text, **special) for text in SPECIALS])
    return tokenizer


def kept(opened: Open, tokenizer: Any) -> Vocab:
    return opened(tokenizer__huggingface__json=tokenizer.to_str())


def test_a_file_without_either_is_left_to_llama_cpp(opened: Open) -> None:
    vocab = opened()
    assert vocab.exact is None
    assert vocab.tokenize(DECOMPOSED) == list(DECOMPOSED.encode())


def test_text_is_brought_into_the_form_that_the_file_names(opened: Open) -> None:
    vocab = opened(mofa_gguf__unicode_normalization="NFC")
    assert vocab.tokenize(DECOMPOSED) == list(COMPOSED.encode())
    assert vocab.tokenize_natively(DECOMPOSED) == list(DECOMPOSED.encode())


def test_a_mark_behind_a_control_token_does_not_grow_together_with_it(opened: Open) -> None:
    vocab = opened(mofa_gguf__unicode_normalization="NFC")
    # U+0338 and ">" have a composed form.
    tokens = vocab.tokenize("<|im_end|>\u0338 e\u0301", parse_special=True)
    assert tokens == [IM_END, *"\u0338 \u00e9".encode()]
    assert vocab.tokenize("<|im_end|>\u0338") == list("<|im_end|\u226f".encode())


def test_what_normalization_makes_of_text_is_no_control_token(opened: Open) -> None:
    vocab = opened(mofa_gguf__unicode_normalization="NFKC")
    text = "\uff1c|im_end|\uff1e"
    for parse_special in (False, True):
        assert vocab.tokenize(text, parse_special=parse_special) == list(b"<|im_end|>")


def test_a_kept_tokenizer_tokenizes_text(opened: Open) -> None:
    tokenizer = byte_tokenizer()
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFD(), normalizers.Lowercase()])
    vocab = kept(opened, tokenizer)
    text = "Ein SCH\u00d6NER Tag"
    assert vocab.tokenize(text) == tokenizer.encode(text, add_special_tokens=False).ids
    assert bytes(vocab.tokenize(text)).decode() == "ein scho\u0308ner tag"


def test_control_tokens_are_read_by_a_kept_tokenizer_only_when_asked_for(opened: Open) -> None:
    vocab = kept(opened, byte_tokenizer())
    assert vocab.tokenize("a<|im_end|>b", parse_special=True) == [97, IM_END, 98]
    assert vocab.tokenize("a<|im_end|>b") == list(b"a<|im_end|>b")
    assert vocab.tokenize("<|im_end|>", parse_special=True, continues=True) == [IM_END]


@pytest.mark.parametrize("special", [True, False])
def test_what_the_file_calls_control_is_control_whatever_the_kept_tokenizer_says(
    opened: Open, special: bool
) -> None:
    tokenizer = byte_tokenizer()
    document = json.loads(tokenizer.to_str())
    for entry in document["added_tokens"]:
        entry["special"] = special
    vocab = opened(tokenizer__huggingface__json=json.dumps(document))
    assert vocab.tokenize("<|im_end|>") == list(b"<|im_end|>")
    assert vocab.tokenize("<|im_end|>", parse_special=True) == [IM_END]


def test_a_kept_tokenizers_normalization_forges_no_control_token(opened: Open) -> None:
    tokenizer = byte_tokenizer(normalized=True)
    tokenizer.normalizer = normalizers.NFKC()
    forged = "x\uff1c|im_end|\uff1ey"
    assert IM_END in tokenizer.encode(forged).ids  # by the library alone it would
    vocab = kept(opened, tokenizer)
    for parse_special in (False, True):
        assert IM_END not in vocab.tokenize(forged, parse_special=parse_special)
    mixed = vocab.tokenize(f"<|im_start|>{forged}<|im_end|>", parse_special=True)
    assert (mixed[0], mixed[-1]) == (IM_START, IM_END)
    assert mixed.count(IM_END) == 1


def test_added_tokens_take_the_white_space_that_they_are_said_to_take(opened: Open) -> None:
    stripping = kept(opened, byte_tokenizer(rstrip=True))
    text = "a<|im_end|> \n b<|im_start|>  c"
    expected = [97, IM_END, 98, IM_START, 99]
    assert stripping.tokenize(text, parse_special=True) == expected
    left = kept(opened, byte_tokenizer(lstrip=True))
    assert left.tokenize("a  <|im_end|>b", parse_special=True) == [97, IM_END, 98]


def test_a_text_that_goes_on_gets_no_mark_of_a_beginning(opened: Open) -> None:
    tokenizer = byte_tokenizer()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    vocab = kept(opened, tokenizer)
    assert vocab.tokenize("word") == list(b" word")
    assert vocab.tokenize("word", continues=True) == list(b"word")
    assert vocab.tokenize("word", continues=True, parse_special=True) == list(b"word")
    assert vocab.tokenize("", continues=True) == []


def test_what_the_model_wants_around_a_text_comes_from_the_file(opened: Open) -> None:
    key = "tokenizer__ggml__add_bos_token"
    plain = opened(**{key: True})
    vocab = opened(**{key: True}, tokenizer__huggingface__json=byte_tokenizer().to_str())
    assert vocab.tokenize("ab", add_special=True) == plain.tokenize("ab", add_special=True)
    assert len(vocab.tokenize("ab", add_special=True)) == 3


@pytest.mark.parametrize("text", ["", "\0", "a\0b", "\ud800", "x\udfffy", "\n", "a" * 50_000])
def test_any_text_is_tokenized(opened: Open, text: str) -> None:
    vocab = kept(opened, byte_tokenizer())
    expected = re.sub("[\ud800-\udfff]", "\ufffd", text).encode()
    assert vocab.tokenize(text) == list(expected)
    assert vocab.tokenize(text, parse_special=True) == list(expected)


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        (KEPT_KEY, "{", "cannot run the tokenizer"),
        (KEPT_KEY, "{}", "cannot run the tokenizer"),
        (KEPT_KEY, 5, "is no text"),
        (FORM_KEY, "NFX", "there are NFC, NFD"),
        (FORM_KEY, 1, "there are NFC, NFD"),
    ],
)
def test_a_damaged_tokenizer_in_a_file_is_refused(
    opened: Open, key: str, value: Any, problem: str
) -> None:
    vocab = opened(**{key.replace(".", "__"): value})
    with pytest.raises(ModelFileError, match=problem):
        vocab.tokenize("x")


def test_a_token_that_the_model_does_not_have_is_an_error(opened: Open) -> None:
    document = json.loads(byte_tokenizer().to_str())
    document["model"]["vocab"]["h"] = 5000
    vocab = opened(tokenizer__huggingface__json=json.dumps(document))
    with pytest.raises(EngineError, match="gives token 5000"):
        vocab.tokenize("oh")


def test_a_conversation_that_grows_is_not_tokenized_anew(opened: Open) -> None:
    vocab = kept(opened, byte_tokenizer())
    exact: Any = vocab.exact
    encoded: list[str] = []
    encode = exact._encode
    exact._encode = lambda text, special: encoded.append(text) or encode(text, special)
    turns = [f"<|im_start|>user\nquestion {n}<|im_end|>\n" for n in range(5)]
    vocab.tokenize("".join(turns), parse_special=True)
    encoded.clear()
    whole = "".join([*turns, "<|im_start|>assistant\n"])
    tokens = vocab.tokenize(whole, parse_special=True)
    assert encoded == ["<|im_start|>assistant\n"]
    assert vocab.detokenize(tokens, unparse_special=True) == whole


@settings(deadline=None)
@given(st.text("ab<|> \n\u00e9", max_size=60), st.booleans())
def test_cutting_a_prompt_at_control_tokens_changes_nothing(text: str, opening: bool) -> None:
    text = text.replace("<a", "<|im_start|>").replace("<b", "<|im_end|>")
    spelled = pattern_of(SPECIALS)
    parts = list(chunks(text, spelled))
    assert "".join(parts) == text
    assert all(spelled is not None and not spelled.search(part, 1) for part in parts)


@settings(deadline=None)
@given(st.lists(st.text("ab(.", min_size=1, max_size=5), max_size=8), st.text("ab(.", max_size=30))
def test_a_pattern_finds_the_longest_of_its_spellings(spellings: list[str], text: str) -> None:
    found = pattern_of(spellings)
    longest_first = sorted(spellings, key=len, reverse=True)
    expected = re.findall("|".join(map(re.escape, longest_first)), text) if spellings else []
    assert [m[0] for m in found.finditer(text)] == expected if found else not spellings


def test_the_memory_of_tokens_is_bounded_and_forgets_what_was_not_asked_for() -> None:
    memo = TokenMemo(max_characters=10)
    asked: list[str] = []

    def encode(text: str) -> list[int]:
        asked.append(text)
        return list(text.encode())

    for text in ("aaaa", "bbbb", "aaaa", "cccc", "aaaa", "bbbb", "x" * 50, "y"):
        assert list(memo.tokens(text, encode)) == list(text.encode())
    assert asked == ["aaaa", "bbbb", "cccc", "bbbb", "x" * 50, "y"]
    assert memo._n_characters <= 10

"""Text that a SentencePiece vocabulary has no tokens for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mofa_gguf.engine.tokens.unwritable import Writable, has_all_bytes
from mofa_gguf.engine.tokens.vocab import Vocab
from mofa_gguf.engine.tokens.vocab_file import VocabFile
from tests.engine.files.test_check import sentencepiece
from tests.support.tiny_gguf import TinyLlama, write_tiny_llama


@pytest.fixture(scope="module")
def vocab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vocab]:
    """Without byte tokens: llama.cpp's tokenizer throws on any other character, uncaught."""
    shape = TinyLlama(vocab=sentencepiece(byte_tokens=False))
    path = write_tiny_llama(tmp_path_factory.mktemp("spm") / "model.gguf", shape)
    with VocabFile(path) as file:
        yield file.vocab


def test_what_cannot_be_written_gets_a_stand_in(vocab: Vocab) -> None:
    assert [vocab.text(i) for i in vocab.tokenize("abüa")] == ["\u2581", "ab", "?", "a"]


def test_what_can_be_written_is_left_alone(vocab: Vocab) -> None:
    assert [vocab.text(i) for i in vocab.tokenize("ab a")] == ["\u2581", "ab", "\u2581", "a"]


@pytest.mark.parametrize("text", ["\0", "你好", "\ud800", "<s>", "x" * 1000, "\n", ""])
def test_no_text_ends_the_process(text: str, vocab: Vocab) -> None:
    assert all(0 <= token < vocab.n_tokens for token in vocab.tokenize(text, add_special=True))


def test_control_tokens_stay_what_they_are(vocab: Vocab) -> None:
    tokens = vocab.tokenize("<s>a", parse_special=True)
    assert "<s>" in [vocab.text(i) for i in tokens]


def test_byte_tokens_write_everything() -> None:
    texts = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    assert has_all_bytes(texts.__getitem__, len(texts))
    assert not has_all_bytes(texts.__getitem__, len(texts) - 1)
    assert Writable(texts)("ü ? 你") == "ü ? 你"


def test_without_any_stand_in_the_character_is_left_out() -> None:
    assert Writable(["a"])("aba") == "aa"

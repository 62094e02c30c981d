"""Text to tokens and back."""

from __future__ import annotations

from pathlib import Path

import pytest

from mofa_gguf.engine.engine import Engine
from mofa_gguf.engine.tokens.vocab_file import VocabFile


def test_control_tokens_are_read_only_when_asked_for(engine: Engine) -> None:
    vocab = engine.model.vocab
    assert vocab.tokenize("<|im_end|>", parse_special=True) == [258]
    assert vocab.tokenize("<|im_end|>") == [ord(c) for c in "<|im_end|>"]
    assert set(vocab.control_texts()) == {"<|endoftext|>", "<|im_start|>", "<|im_end|>"}


def test_text_comes_back_from_its_tokens(engine: Engine) -> None:
    vocab = engine.model.vocab
    text = "Grüße, 世界 \U0001f600\n\tend"
    assert vocab.detokenize(vocab.tokenize(text)) == text
    assert b"".join(vocab.piece(t) for t in vocab.tokenize(text)).decode() == text


@pytest.mark.parametrize("letter", ["a", " ", "\n", "7", "é", "-"])
def test_a_run_of_any_length_is_tokenized_without_a_crash(engine: Engine, letter: str) -> None:
    text = letter * 300_000
    tokens = engine.model.vocab.tokenize(text)
    assert len(tokens) == len(text.encode())


def test_a_text_that_goes_on_gets_no_space_in_front(shared_data: Path) -> None:
    with VocabFile(shared_data / "vocab" / "ggml-vocab-llama-spm.gguf") as file:
        vocab = file.vocab
        whole = vocab.tokenize("Hello<|im_end|>")
        parts = vocab.tokenize("Hello<") + vocab.tokenize("|im_end|>", continues=True)
        assert vocab.detokenize(parts) == vocab.detokenize(whole)
        assert vocab.tokenize("", continues=True) == []

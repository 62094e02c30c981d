"""What a context takes: plain functions of values."""

from __future__ import annotations

from pathlib import Path

from mofa_gguf.engine.files.header import read_header
from mofa_gguf.engine.planning.sizing import trained_context
from mofa_gguf.engine.running.embedding import pack


def test_the_trained_context_is_the_files(tiny_model: Path) -> None:
    assert trained_context(read_header(tiny_model)) == 256


def test_embedding_batches_hold_what_fits_and_lose_nothing() -> None:
    lengths = [5, 5, 5, 12, 1, 1, 1]
    batches = pack(lengths, n_batch=12, n_sequences=2)
    assert [list(b) for b in batches] == [[0, 1], [2], [3], [4, 5], [6]]
    assert pack([], n_batch=12, n_sequences=2) == []

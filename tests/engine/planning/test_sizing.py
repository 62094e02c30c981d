"""What a context takes: plain functions of values."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from mofa_gguf.engine.files.header import read_header
from mofa_gguf.engine.planning.sizing import kv_bytes_per_token, trained_context
from mofa_gguf.engine.running.embedding import pack


def test_kv_cache_bytes_follow_from_layers_heads_and_type(tiny_model: Path) -> None:
    header = read_header(tiny_model)
    # 2 layers x 2 KV heads x 16 values, for keys and for values
    assert kv_bytes_per_token(header, "f16", "f16") == 2 * 2 * 16 * 2 * 2
    assert kv_bytes_per_token(header, "q8_0", "f32") == 64 // 32 * 34 + 64 * 4


def test_the_trained_context_is_the_files(tiny_model: Path) -> None:
    assert trained_context(read_header(tiny_model)) == 256


def test_values_a_layer_each_are_added_up(tiny_model: Path) -> None:
    header = read_header(tiny_model)
    uneven = replace(header, metadata={**header.metadata, "llama.attention.head_count_kv": [2, 0]})
    assert kv_bytes_per_token(uneven, "f16", "f16") == 2 * 16 * 2 * 2


def test_embedding_batches_hold_what_fits_and_lose_nothing() -> None:
    lengths = [5, 5, 5, 12, 1, 1, 1]
    batches = pack(lengths, n_batch=12, n_sequences=2)
    assert [list(b) for b in batches] == [[0, 1], [2], [3], [4, 5], [6]]
    assert pack([], n_batch=12, n_sequences=2) == []

"""How large a context is chosen: plain functions of values."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from mofa_gguf.engine.embedding import pack
from mofa_gguf.engine.header import read_header
from mofa_gguf.engine.sizing import auto_context, kv_bytes_per_token
from tests.support.tiny_gguf import TinyLlama, write_tiny_llama


def test_kv_cache_bytes_follow_from_layers_heads_and_type(tiny_model: Path) -> None:
    header = read_header(tiny_model)
    # 2 layers x 2 KV heads x 16 values, for keys and for values
    assert kv_bytes_per_token(header, "f16", "f16") == 2 * 2 * 16 * 2 * 2
    assert kv_bytes_per_token(header, "q8_0", "f32") == 64 // 32 * 34 + 64 * 4


def test_auto_context_is_the_trained_one_where_memory_allows(tmp_path: Path) -> None:
    header = read_header(write_tiny_llama(tmp_path / "m.gguf", TinyLlama(n_ctx=131072)))
    ample = auto_context(
        header, type_k="f16", type_v="f16", available_bytes=2**34, weights_bytes=2**20
    )
    assert ample == 131072
    tight = auto_context(
        header, type_k="f16", type_v="f16", available_bytes=2**21, weights_bytes=2**20
    )
    assert tight == 2**20 // 2 // 256 // 256 * 256
    none = auto_context(header, type_k="f16", type_v="f16", available_bytes=0, weights_bytes=1)
    assert none == 512


def test_auto_context_never_exceeds_a_small_trained_one(tiny_model: Path) -> None:
    header = read_header(tiny_model)
    for available in (0, 2**40):
        context = auto_context(
            header, type_k="f16", type_v="f16", available_bytes=available, weights_bytes=0
        )
        assert context == 256


def test_values_a_layer_each_are_added_up(tiny_model: Path) -> None:
    header = read_header(tiny_model)
    uneven = replace(header, metadata={**header.metadata, "llama.attention.head_count_kv": [2, 0]})
    assert kv_bytes_per_token(uneven, "f16", "f16") == 2 * 16 * 2 * 2


def test_embedding_batches_hold_what_fits_and_lose_nothing() -> None:
    lengths = [5, 5, 5, 12, 1, 1, 1]
    batches = pack(lengths, n_batch=12, n_sequences=2)
    assert [list(b) for b in batches] == [[0, 1], [2], [3], [4, 5], [6]]
    assert pack([], n_batch=12, n_sequences=2) == []

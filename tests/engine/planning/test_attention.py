"""Which attention is computed how, and when a batch is filled up for it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mofa_gguf.engine.files.header import read_header
from mofa_gguf.engine.options import FlashAttention
from mofa_gguf.engine.planning.attention import (
    TILE,
    TileCost,
    attention_for,
    head_lengths,
    tile_cost,
)
from tests.support.tiny_gguf import write_tiny_llama
from tools.bench.model import Shape, write_model


def chosen(
    asked: FlashAttention = "auto",
    *,
    types: tuple[str, str] = ("f16", "f16"),
    on_cpu: bool = True,
    lengths: tuple[int, ...] = (64,),
    at_once: int = 64,
) -> str:
    return attention_for(
        asked,
        type_k=types[0],
        type_v=types[1],
        on_cpu=on_cpu,
        head_lengths=frozenset(lengths),
        values_at_once=at_once,
    )


def test_flash_attention_is_taken_where_the_kernel_takes_heads_whole() -> None:
    assert chosen(lengths=(64,), at_once=64) == "auto"
    assert chosen(lengths=(128, 256), at_once=128) == "auto"


@pytest.mark.parametrize(
    ("lengths", "at_once"), [((64,), 128), ((80,), 64), ((128, 96), 64), ((64,), 0), ((), 64)]
)
def test_plain_attention_is_taken_where_a_part_of_a_head_is_left_over(
    lengths: tuple[int, ...], at_once: int
) -> None:
    assert chosen(lengths=lengths, at_once=at_once) == "off"


@pytest.mark.parametrize("types", [("f32", "f32"), ("bf16", "bf16"), ("q8_0", "f16")])
def test_plain_attention_is_taken_where_flash_attention_has_no_tiles(
    types: tuple[str, str],
) -> None:
    assert chosen(types=types) == "off"


def test_a_quantized_cache_of_values_is_for_flash_attention_only() -> None:
    assert chosen(types=("f16", "q8_0"), at_once=0) == "on"


def test_what_was_asked_for_stays_and_a_device_is_left_to_llama_cpp() -> None:
    assert chosen("on", at_once=0) == "on"
    assert chosen("off") == "off"
    assert chosen(on_cpu=False, at_once=0) == "auto"


@given(st.floats(0, 0.1), st.integers(1, 200), st.integers(0, 500_000), st.integers(1, 100_000))
def test_a_batch_is_filled_to_one_tile_or_not_at_all(
    per_cell: float, n_tokens: int, n_pairs: int, n_cells: int
) -> None:
    n = TileCost(per_cell).n_filling(n_tokens, n_pairs=n_pairs, n_cells=n_cells)
    assert n == 0 or n_tokens + n == TILE


def test_the_more_cells_lie_before_it_the_shorter_a_prompt_is_worth_filling() -> None:
    cost = TileCost(2.7e-4)  # 0.4 B parameters

    def shortest(depth: int) -> int:
        return next(
            n
            for n in range(1, TILE + 1)
            if n == TILE or cost.n_filling(n, n_pairs=n * depth, n_cells=depth)
        )

    # Measured: 48 tokens behind 500 take as long as 64; behind 2,000, 31 do.
    assert 44 <= shortest(500) <= 52
    assert 28 <= shortest(2000) <= 36
    assert shortest(8000) < shortest(2000)


def test_streams_that_only_decode_are_not_filled_up() -> None:
    cost = TileCost(2.7e-4)
    assert cost.n_filling(16, n_pairs=16 * 300, n_cells=16 * 300) == 0


def test_a_header_tells_its_heads_and_what_attention_takes(tmp_path: Path) -> None:
    shape = Shape(n_layers=2, n_embd=256, n_heads=4, n_kv_heads=2, n_ff=512, n_vocab=600, n_ctx=512)
    header = read_header(write_model(tmp_path / "model.gguf", shape))
    assert head_lengths(header) == {64}
    cost = tile_cost(header, header.tensors)
    assert cost is not None
    # Its embeddings are its output matrix, too.
    assert cost.per_cell == pytest.approx(4.5 * 2 * 256 / header.n_parameters)


def test_latent_attention_has_no_say_in_it(tmp_path: Path) -> None:
    header = read_header(write_tiny_llama(tmp_path / "model.gguf"))
    header.metadata[f"{header.architecture}.attention.key_length_mla"] = 192
    assert not head_lengths(header)
    assert tile_cost(header, header.tensors) is None

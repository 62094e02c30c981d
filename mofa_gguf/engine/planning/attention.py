"""Which attention kernels a context uses, and what attention takes beside the weights.

llama.cpp's flash attention for CPUs skips the cells of other sequences; it goes tile by tile where
64 tokens or more come at once, and cell by cell else. Its plain attention is a matrix product over
all cells in use. Measured on two cores with AVX-512 (0.4 B parameters, heads of 64, F16 cache),
plain against flash: four times 64 more tokens behind 600 each 2.4 s and 1.3 s, 64 behind 2,000
0.68 s and 0.45 s; a step of sixteen streams of 300 cells 207 ms and 165 ms, of four streams of
1,000 cells 93 ms and 101 ms, of one stream of 4,000 cells 59 ms and 80 ms.

Where a head is no multiple of what the kernel adds up at a time, the rest goes one by one: with
AVX512-FP16, which takes 128 values, a step of four streams of 512 cells takes 91 ms in place of 61.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from mofa_gguf.engine.files.header import GGUFHeader, TensorInfo
from mofa_gguf.engine.files.tensor_types import TYPES_BY_NAME
from mofa_gguf.engine.options import AUTO, FlashAttention

TILE = 64
"""Tokens from which on flash attention goes tile by tile (GGML_FA_TILE_Q)."""
_CELL_COST = 4.5
"""A cell's share of attention in tiles to its share of a product with weights, number for number:
measured, on the machine of the table above."""
_SINGLY = 4.3
"""How much longer a cell takes where flash attention goes cell by cell."""


class TileCost(NamedTuple):
    """What flash attention on a CPU takes, in units of one token's products with the weights."""

    per_cell: float
    """One token over one cell, in tiles."""

    def n_filling(self, n_tokens: int, *, n_pairs: int, n_cells: int) -> int:
        """Tokens worth adding to a batch so that it is computed in tiles.

        ``n_pairs``: cells that its tokens attend to, summed up. ``n_cells``: cells that any attends
        to; a tile takes as long as if all its tokens did.
        """
        if n_tokens >= TILE:
            return 0
        singly = n_tokens + _SINGLY * self.per_cell * n_pairs
        tiled = TILE * (1 + self.per_cell * n_cells)
        return TILE - n_tokens if tiled < singly else 0


def attention_for(
    asked: FlashAttention,
    *,
    type_k: str,
    type_v: str,
    on_cpu: bool,
    head_lengths: frozenset[int],
    values_at_once: int,
) -> FlashAttention:
    """The kernels for a cache of these types; "auto" leaves it to llama.cpp, which takes flash.

    ``values_at_once``: what the CPU's kernel adds up at a time (0: one value). A quantized cache of
    values is for flash attention only; one in any other type than F16 has no tiles.
    """
    if asked != AUTO or not on_cpu:
        return asked
    if type_v != AUTO and TYPES_BY_NAME[type_v.upper()].block_size > 1:
        return "on"
    in_tiles = {type_k.upper(), type_v.upper()} <= {"F16", AUTO.upper()}
    return AUTO if in_tiles and _whole(head_lengths, values_at_once) else "off"


def _whole(head_lengths: frozenset[int], values_at_once: int) -> bool:
    if not head_lengths or not values_at_once:
        return False
    return all(length % values_at_once == 0 for length in head_lengths)


def head_lengths(header: GGUFHeader) -> frozenset[int]:
    """Values a head has, in K and in V, of every kind of layer; none with latent attention."""
    if header.hyperparameter("attention.key_length_mla"):
        return frozenset()
    n_heads, n_embd = _most_heads(header), header.hyperparameter("embedding_length", 0)
    default = n_embd // n_heads if n_heads and isinstance(n_embd, int) else 0
    lengths = [
        header.hyperparameter(f"attention.{kind}_length{window}", default)
        for kind in ("key", "value")
        for window in ("", "_swa")
    ]
    return frozenset(length for length in lengths if isinstance(length, int) and length)


def tile_cost(header: GGUFHeader, tensors: Sequence[TensorInfo]) -> TileCost | None:
    """What attention takes beside the weights of the header's model; None without attention."""
    has_output = any(tensor.name == "output.weight" for tensor in tensors)
    weights = [t for t in tensors if not (has_output and t.name.startswith("token_embd"))]
    n_layers = header.hyperparameter("block_count", 0)
    n_values = _most_heads(header) * max(head_lengths(header), default=0)
    n_weights = sum(tensor.n_elements * _used(header, tensor.name) for tensor in weights)
    if not n_weights or not n_values or not isinstance(n_layers, int):
        return None
    return TileCost(_CELL_COST * n_layers * n_values / n_weights)


def _used(header: GGUFHeader, name: str) -> float:
    """The share of a tensor that one token is multiplied with."""
    n_experts = header.hyperparameter("expert_count", 0)
    n_used = header.hyperparameter("expert_used_count", 0)
    is_expert = "_exps" in name and isinstance(n_experts, int) and isinstance(n_used, int)
    return n_used / n_experts if is_expert and n_experts else 1.0


def _most_heads(header: GGUFHeader) -> int:
    counts = header.hyperparameter("attention.head_count", 0)
    return max(counts, default=0) if isinstance(counts, list) else int(counts or 0)

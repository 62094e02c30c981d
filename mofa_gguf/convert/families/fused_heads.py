"""Queries, keys and values in one matrix, head by head: GPT-NeoX, Falcon and Bloom."""

from __future__ import annotations

import numpy as np

from mofa_gguf.convert.families.base import Dimensions, Rule
from mofa_gguf.convert.weights import Weights, reordered


def _unfused(weights: Weights, dimensions: Dimensions) -> Weights:
    """All queries, then all keys, then all values.

    They come in groups of some queries with the one key and the one value that they share.
    """
    groups, head_dim = dimensions["kv_heads"], dimensions["head_dim"]
    rows = np.arange(weights.shape[0]).reshape(groups, -1, head_dim)
    parts = (rows[:, :-2], rows[:, -2], rows[:, -1])
    return reordered(weights, np.concatenate([part.reshape(-1) for part in parts]))


def fused_weight(source: str) -> Rule:
    """The matrix; the name without ``.weight``."""
    return Rule(f"{source}.weight", "blk.{i}.attn_qkv.weight", ("qkv", "embd"), _unfused)


def fused_bias(source: str) -> Rule:
    """Its bias."""
    return Rule(f"{source}.bias", "blk.{i}.attn_qkv.bias", ("qkv",), _unfused)


def with_fused(sizes: Dimensions) -> Dimensions:
    """A decoder's dimensions and the fused matrix's."""
    return {**sizes, "qkv": sizes["q"] + 2 * sizes["kv"]}

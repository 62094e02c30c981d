"""Rules that many decoders share, as functions of what differs.

Dimensions: "q" and "kv" are the heads and the key-value heads times "head_dim".
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mofa_gguf.convert.families.base import Dimensions, Rule
from mofa_gguf.convert.families.decoder import paired_rotation
from mofa_gguf.convert.weights import Rows, Weights, mapped

LAYER = "model.layers.{i}"
_QUERY, _KEY = paired_rotation("heads"), paired_rotation("kv_heads")


def matrix(source: str, target: str, out: str, inn: str) -> Rule:
    """A weight without bias; names without ``.weight``."""
    return Rule(f"{source}.weight", f"{target}.weight", (out, inn))


def bias(source: str, target: str, size: str, *, flag: str | None = None) -> Rule:
    """A bias; names without ``.bias``."""
    return Rule(f"{source}.bias", f"{target}.bias", (size,), flag=flag)


def linear(source: str, target: str, out: str, inn: str) -> tuple[Rule, Rule]:
    """A weight and its bias."""
    return matrix(source, target, out, inn), bias(source, target, out)


def norm(source: str, target: str, size: str = "embd") -> tuple[Rule]:
    """A norm that only scales."""
    return (Rule(f"{source}.weight", f"{target}.weight", (size,)),)


def layer_norm(source: str, target: str) -> tuple[Rule, Rule]:
    """A norm that scales and shifts."""
    return (*norm(source, target), bias(source, target, "embd"))


def attention(
    *, paired: bool = False, source: str = f"{LAYER}.self_attn", output: str = "o_proj"
) -> tuple[Rule, ...]:
    """Separate queries, keys and values, and the output.

    ``paired``: llama.cpp's rope for the family rotates neighbours (LLAMA_ROPE_TYPE_NORM), and
    transformers' rotates halves.
    """
    query, key = (_QUERY, _KEY) if paired else (None, None)
    return (
        Rule(f"{source}.q_proj.weight", "blk.{i}.attn_q.weight", ("q", "embd"), query),
        Rule(f"{source}.k_proj.weight", "blk.{i}.attn_k.weight", ("kv", "embd"), key),
        matrix(f"{source}.v_proj", "blk.{i}.attn_v", "kv", "embd"),
        matrix(f"{source}.{output}", "blk.{i}.attn_output", "embd", "q"),
    )


def qkv_biases(
    *, paired: bool = False, flag: str | None = None, source: str = f"{LAYER}.self_attn"
) -> tuple[Rule, ...]:
    """Biases of queries, keys and values; with a ``flag`` only where config.json sets it."""
    query, key = (_QUERY, _KEY) if paired else (None, None)
    return (
        Rule(f"{source}.q_proj.bias", "blk.{i}.attn_q.bias", ("q",), query, flag),
        Rule(f"{source}.k_proj.bias", "blk.{i}.attn_k.bias", ("kv",), key, flag),
        bias(f"{source}.v_proj", "blk.{i}.attn_v", "kv", flag=flag),
    )


def without_channels(weights: Weights, dimensions: Dimensions) -> Weights:
    """The transform for a convolution of one channel each: a matrix."""
    return replace(weights, shape=(weights.shape[0], weights.shape[-1]))


def decay(weights: Weights, dimensions: Dimensions) -> Weights:
    """The transform for a stored logarithm of the states' decay; llama.cpp wants it negative."""

    def negated_exponential(rows: Rows) -> Rows:
        return -np.exp(rows)

    return mapped(weights, negated_exponential)

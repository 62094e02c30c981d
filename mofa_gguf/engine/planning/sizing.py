"""What a context takes: plain functions of values from the header."""

from __future__ import annotations

from mofa_gguf.engine.files.header import GGUFHeader
from mofa_gguf.engine.files.tensor_types import TYPES_BY_NAME

DEFAULT_TRAINED_CTX = 4096


def _per_layer(value: object, n_layers: int) -> list[int]:
    if isinstance(value, list):
        return [int(v) for v in value]
    return [int(value) if isinstance(value, int) else 0] * n_layers


def kv_bytes_per_token(header: GGUFHeader, type_k: str, type_v: str) -> int:
    """Bytes of KV cache that one token of context takes, over all layers; 0 if it has none."""
    n_layers = int(header.hyperparameter("block_count", 0))
    n_heads = header.hyperparameter("attention.head_count", 0)
    kv_heads = _per_layer(header.hyperparameter("attention.head_count_kv", n_heads), n_layers)
    first_heads = max(_per_layer(n_heads, n_layers), default=0)
    n_embd = int(header.hyperparameter("embedding_length", 0))
    head = n_embd // first_heads if first_heads else 0
    length_k = int(header.hyperparameter("attention.key_length", head))
    length_v = int(header.hyperparameter("attention.value_length", head))
    # What "auto" is first tried with.
    k, v = (TYPES_BY_NAME["F16" if t == "auto" else t.upper()] for t in (type_k, type_v))
    total = sum(kv_heads)
    return (
        total * length_k * k.n_block_bytes // k.block_size
        + total * length_v * v.n_block_bytes // v.block_size
    )


def trained_context(header: GGUFHeader) -> int:
    """Tokens of context the model was trained for, as its file says."""
    value = header.hyperparameter("context_length", DEFAULT_TRAINED_CTX)
    return int(value) if isinstance(value, int) and value > 0 else DEFAULT_TRAINED_CTX

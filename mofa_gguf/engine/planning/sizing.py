"""What a context takes: plain functions of values, from the header or from the machine."""

from __future__ import annotations

from mofa_gguf.engine.files.header import GGUFHeader

DEFAULT_TRAINED_CTX = 4096
BLOCK, TILE = 4, 32
"""Tokens that weights are multiplied with at a time: laid out in blocks, and in tiles for AMX."""
_PARKING_SHARE = 0.1
_MAX_PARKING_BYTES = 2 * 2**30


def trained_context(header: GGUFHeader) -> int:
    """Tokens of context the model was trained for, as its file says."""
    value = header.hyperparameter("context_length", DEFAULT_TRAINED_CTX)
    return int(value) if isinstance(value, int) and value > 0 else DEFAULT_TRAINED_CTX


def parking_bytes(available: int) -> int:
    """Host memory for prefixes that gave way, of what is available once the model is loaded."""
    return max(0, min(_MAX_PARKING_BYTES, int(available * _PARKING_SHARE)))

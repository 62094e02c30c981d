"""What a context takes: plain functions of values, from the header or from the machine."""

from __future__ import annotations

from mofa_gguf.engine.files.header import GGUFHeader

DEFAULT_TRAINED_CTX = 4096
# Written by our converter from sentence_bert_config.json: sentence encoders are often trained on
# less than their position table holds.
MAX_LENGTH_KEY = "mofa_gguf.max_sequence_length"
BLOCK, TILE = 4, 32
"""Tokens that weights are multiplied with at a time: laid out in blocks, and in tiles for AMX."""
_PARKING_SHARE = 0.1
_MAX_PARKING_BYTES = 2 * 2**30


def trained_context(header: GGUFHeader) -> int:
    """Tokens of context the model was trained for, as its file says."""
    value = header.hyperparameter("context_length", DEFAULT_TRAINED_CTX)
    return int(value) if isinstance(value, int) and value > 0 else DEFAULT_TRAINED_CTX


def shortest_limit(header: GGUFHeader, *limits: int | None) -> int | None:
    """The smallest of these limits to a text's tokens and the file's own; None without any."""
    told = (*limits, header.metadata.get(MAX_LENGTH_KEY))
    return min((each for each in told if isinstance(each, int) and each > 0), default=None)


def parking_bytes(available: int) -> int:
    """Host memory for prefixes that gave way, of what is available once the model is loaded."""
    return max(0, min(_MAX_PARKING_BYTES, int(available * _PARKING_SHARE)))

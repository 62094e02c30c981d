"""Layers that attend to a window over the last tokens, between layers that attend to all.

llama.cpp: ``load_swa_pattern`` in src/llama-model.cpp; a window of ``n`` is the token itself and
the ``n - 1`` before it, in transformers and in llama.cpp.
"""

from __future__ import annotations

from collections.abc import Sequence

from mofa_gguf.convert.config import Config
from mofa_gguf.convert.metadata import Metadata

_SLIDING, _FULL = "sliding_attention", "full_attention"


def sliding_layers(config: Config, n_layers: int, *, period: int) -> list[bool]:
    """For every layer whether it attends to a window only.

    From ``layer_types`` or, as older configurations say it, from ``sliding_window_pattern``: every
    so many layers one attends to all. ``period`` is the family's own such number. Raises
    CheckpointError where no layer has a window: llama.cpp ends the process then.
    """
    layers = _layers(config, n_layers, period=period)
    if not any(layers):
        raise config.fail("layer_types", f"must hold {_SLIDING} at least once for llama.cpp")
    return layers


def _layers(config: Config, n_layers: int, *, period: int) -> list[bool]:
    types = config.values.get("layer_types")
    if types is None:
        period = config.integer("sliding_window_pattern", default=period)
        return _every(period, n_layers)
    known = isinstance(types, list) and all(kind in (_SLIDING, _FULL) for kind in types)
    if not known or len(types) != n_layers:  # type: ignore[arg-type]
        raise config.fail("layer_types", f"must be a list of {n_layers} of {_SLIDING} and {_FULL}")
    return [kind == _SLIDING for kind in types]  # type: ignore[attr-defined]


def write_window(
    metadata: Metadata, architecture: str, window: int, layers: Sequence[bool], *, period: int
) -> None:
    """Set the window's keys; the pattern only where it is not the one of llama.cpp's loader."""
    prefix = f"{architecture}.attention.sliding_window"
    metadata.uint32(prefix, window)
    if list(layers) != _every(period, len(layers)):
        metadata.booleans(f"{prefix}_pattern", layers)


def _every(period: int, n_layers: int) -> list[bool]:
    return [(i + 1) % period != 0 for i in range(n_layers)]

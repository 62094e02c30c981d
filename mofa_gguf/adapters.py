"""LoRA adapters as settings name them: a path, a table with path and scale, or a list of those."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from mofa_gguf.engine.options import LoraAdapter

_MAX_SCALE = 3.0e38
"""llama.cpp's is a 32-bit float."""


def read_adapters(value: object, base_dir: Path | None = None) -> tuple[LoraAdapter, ...]:
    """The adapters that a setting's value names; relative paths count from ``base_dir``.

    A text that begins like JSON is read as JSON, for environment variables. Raises ValueError.
    """
    if isinstance(value, str) and value.lstrip().startswith(("[", "{")):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise ValueError(f"is no JSON ({error})") from error
    if isinstance(value, str | Path | Mapping | LoraAdapter):
        value = [value]
    if not isinstance(value, Sequence):
        raise ValueError("must be a path, a table with path and scale, or a list of those")
    return tuple(_adapter(item, base_dir) for item in value)


def _adapter(item: object, base_dir: Path | None) -> LoraAdapter:
    if isinstance(item, LoraAdapter):
        item = {"path": item.path, "scale": item.scale}
    if isinstance(item, str | Path):
        item = {"path": item}
    if not isinstance(item, Mapping) or not {"path"} <= set(item) <= {"path", "scale"}:
        raise ValueError("an adapter has a path, and may have a scale; nothing else")
    path, scale = item["path"], item.get("scale", 1.0)
    if not isinstance(path, str | Path) or not str(path):
        raise ValueError(f"an adapter's path must be a path, not {path!r:.60}")
    is_number = isinstance(scale, int | float) and not isinstance(scale, bool)
    if not is_number or not abs(scale) <= _MAX_SCALE:
        raise ValueError(f"an adapter's scale must be a number, not {scale!r:.60}")
    found = Path(os.path.expanduser(path))
    return LoraAdapter(str(base_dir / found if base_dir is not None else found), float(scale))

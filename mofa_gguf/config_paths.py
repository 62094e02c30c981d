"""Relative paths among the options of a config file: they count from the file's folder."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidatorFunctionWrapHandler, WrapValidator

from mofa_gguf.adapters import read_adapters

BUNDLED = "demo"
"""The model that comes with the package, whatever files there are."""


def _as_it_is(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
    """A path keeps the bytes that are no UTF-8: file names may have them, and pydantic has none."""
    try:
        if isinstance(value, str):
            value.encode()
    except UnicodeEncodeError:
        return value
    return handler(value)


PathText = Annotated[str, Field(min_length=1), WrapValidator(_as_it_is)]
"""A path, or what else names a model."""
Folder = Annotated[
    Path, BeforeValidator(lambda value: Path(value) if isinstance(value, str) else value)
]


def paths_from(values: dict[str, Any], base_dir: Path) -> dict[str, Any]:
    """The options with their relative paths made absolute, those of several models too."""
    models = values.get("models")
    # With several models, ``model`` is the name of one of them.
    keys = ("draft_model",) if models else ("model", "draft_model")
    found = {key: _from_folder(values.get(key), base_dir) for key in keys}
    if isinstance(cache_dir := values.get("cache_dir"), str | Path):
        found["cache_dir"] = str(base_dir / Path(os.path.expanduser(cache_dir)))
    values = {**values, **{key: value for key, value in found.items() if value is not None}}
    if values.get("lora"):
        with contextlib.suppress(ValueError):  # said again, with the option's name, when validated
            values["lora"] = read_adapters(values["lora"], base_dir)
    if isinstance(models, Mapping):
        values["models"] = {
            name: paths_from(dict(table), base_dir)
            if isinstance(table, Mapping)
            else _from_folder(table, base_dir)
            for name, table in models.items()
        }
    return values


def _from_folder(value: object, base_dir: Path) -> object:
    """A relative path made absolute; hub ids and ``demo`` are left as they are.

    ``models/x`` is a path where ``base_dir`` has the file or at least the folder ``models``.
    """
    if not isinstance(value, str | Path) or str(value) in ("", BUNDLED):
        return value
    path = Path(os.path.expanduser(value))
    if path.is_absolute():
        return str(path)
    looks_like_path = str(value).startswith(".") or path.suffix == ".gguf"
    in_folder = len(path.parts) > 1 and (base_dir / path).parent.is_dir()
    if looks_like_path or in_folder or (base_dir / path).exists():
        return str(base_dir / path)
    return value

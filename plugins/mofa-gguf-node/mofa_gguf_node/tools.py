"""Python functions an agent may call, named in its settings."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

from mofa_gguf.contract import ConfigError

_FIELD = "MOFA_AGENT_TOOLS"


def load_tools(specs: Iterable[str], base_dir: Path) -> list[Callable[..., Any]]:
    """The functions that ``file.py:name,other`` and ``package.module:name`` name.

    The code is the user's own and is run; a file's path starts at ``base_dir``.

    Raises:
        ConfigError: a file, module or function is not there, or its import fails.
    """
    return [tool for spec in specs for tool in _load(spec, base_dir)]


def _load(spec: str, base_dir: Path) -> list[Callable[..., Any]]:
    place, _, names = spec.rpartition(":")
    if not place or not names:
        raise ConfigError(
            f"{_FIELD}: {spec!r} names no function; write file.py:name or package.module:name",
            field=_FIELD,
        )
    module = _module(place, base_dir)
    return [_function(module, place, name) for name in names.split(",") if name]


def _module(place: str, base_dir: Path) -> ModuleType:
    try:
        if not place.endswith(".py"):
            return importlib.import_module(place)
        path = base_dir / place
        spec = importlib.util.spec_from_file_location(path.stem, path)
        if spec is None or spec.loader is None:
            raise ImportError(f"{path} is no Python file")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    # The user's file may raise anything; all of it means that the tool is not to be had.
    except Exception as error:
        raise ConfigError(
            f"{_FIELD}: {place} cannot be imported ({type(error).__name__}: {error})", field=_FIELD
        ) from error
    return module


def _function(module: ModuleType, place: str, name: str) -> Callable[..., Any]:
    found = getattr(module, name, None)
    if not callable(found):
        known = [key for key, value in vars(module).items() if callable(value) and key[0] != "_"]
        raise ConfigError(
            f"{_FIELD}: {place} has no function {name!r}; it has {', '.join(known) or 'none'}",
            field=_FIELD,
            known=known,
        )
    function: Callable[..., Any] = found
    return function

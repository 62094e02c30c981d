"""Model families: one small file each, registered once, found by the class in config.json.

To add a family, write a module in this folder with a :class:`~.base.Family` under
:func:`register`; nothing else changes. Other distributions add families through a hook
(:mod:`mofa_gguf.convert.plugins`).
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from mofa_gguf.convert.checkpoint import Checkpoint
from mofa_gguf.convert.errors import CheckpointError, UnsupportedArchitecture
from mofa_gguf.convert.families.base import Family

FamilyType = TypeVar("FamilyType", bound=type[Family])

_registered: dict[str, type[Family]] = {}
_loaded = False


def register(*architectures: str) -> Callable[[FamilyType], FamilyType]:
    """Class decorator: the family converts these classes of transformers.

    ValueError if another family has one of the names already.
    """

    def add(family: FamilyType) -> FamilyType:
        for name in architectures:
            if name in _registered and _registered[name] is not family:
                raise ValueError(f"{name} is registered already, by {_registered[name].__name__}")
            _registered[name] = family
        return family

    return add


def known() -> dict[str, type[Family]]:
    """Every architecture and its family."""
    global _loaded
    if not _loaded:
        for name in _modules():
            importlib.import_module(f"{__name__}.{name}")
        _loaded = True
    return dict(_registered)


def _modules() -> Iterator[str]:
    return (module.name for module in pkgutil.iter_modules(__path__))


def _ours(architecture: str) -> type[Family] | None:
    """The family of one class; modules that do not have its name in them are not imported.

    All of them take 30 ms, and finding those that do takes 2.
    """
    if architecture not in _registered and not _loaded:
        for name in _modules():
            if _mentions(name, architecture):
                importlib.import_module(f"{__name__}.{name}")
                if architecture in _registered:
                    break
    return _registered.get(architecture)


def _mentions(module: str, architecture: str) -> bool:
    try:
        text = Path(__file__).with_name(f"{module}.py").read_bytes()
    except OSError:  # installed without its sources
        return True
    return f'"{architecture}"'.encode(errors="replace") in text


def family_of(checkpoint: Checkpoint) -> Family:
    """The family for a checkpoint: ours, or else a plugin's (:mod:`mofa_gguf.convert.plugins`).

    Raises UnsupportedArchitecture, which lists the known ones, and CheckpointError where
    config.json names no architecture.
    """
    names = checkpoint.architectures
    if not names:
        raise CheckpointError(
            checkpoint.config.path,
            "names no architecture; the converter needs "
            f'"architectures" to hold one of {", ".join(sorted(known()))}',
        )
    for name in names:
        family = _ours(name)
        if family is not None:
            return family.chosen(checkpoint)(checkpoint, name)
    # Imported here: the plugins' side needs the families.
    from mofa_gguf.convert.plugins import discover

    found = discover()
    for name in names:
        if name in found.families:
            return found.families[name].chosen(checkpoint)(checkpoint, name)
    raise UnsupportedArchitecture(
        checkpoint.config.path, names[0], [*known(), *found.families], broken=found.problems
    )

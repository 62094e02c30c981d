"""Model families that other distributions bring, through the entry-point group "mofa".

    # acme_mofa.py, named by an entry point of the group "mofa"
    from mofa_gguf.convert.families.llama import Llama
    from mofa_gguf.convert.plugins import hookimpl

    class Acme(Llama):
        prefixes = ("acme.",)

    @hookimpl
    def mofa_register_families(registry):
        registry.register(Acme, "AcmeForCausalLM")

Plugins are asked only where a checkpoint's class is not one of ours, and when families are listed.
Each is loaded by itself: one that cannot be imported, raises, or claims a class that is taken
becomes a sentence in ``Discovered.problems``, and the others work. A plugin registers wholly or
not at all.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import pluggy

from mofa_gguf.convert.families import known
from mofa_gguf.convert.families.base import Family

logger = logging.getLogger(__name__)

PROJECT_NAME = "mofa"
"""Name of the pluggy project and of the entry-point group."""
OWN_DISTRIBUTION = "mofa-gguf"

hookspec = pluggy.HookspecMarker(PROJECT_NAME)
hookimpl = pluggy.HookimplMarker(PROJECT_NAME)


class FamilyRegistry:
    """What one plugin registers; handed to its hook."""

    def __init__(self, taken: Mapping[str, str]) -> None:
        self.families: dict[str, type[Family]] = {}
        self._taken = taken

    def register(self, family: type[Family], *architectures: str) -> None:
        """Convert checkpoints of the classes ``architectures`` (config.json) with ``family``.

        Raises TypeError for what is no complete Family and no name, ValueError for a class that
        another family converts already.
        """
        if not (isinstance(family, type) and issubclass(family, Family)):
            raise TypeError(
                f"{family!r:.80} is no subclass of mofa_gguf.convert.families.base.Family"
            )
        lacking = [name for name in ("architecture", "rules") if not hasattr(family, name)]
        if inspect.isabstract(family):
            lacking += sorted(family.__abstractmethods__)
        if lacking:
            raise TypeError(f"{family.__name__} does not define {', '.join(lacking)}")
        if not architectures:
            raise TypeError(f"{family.__name__} is registered for no class; name at least one")
        for name in architectures:
            if not isinstance(name, str) or not name:
                raise TypeError(f"a class of transformers has a name, not {name!r:.40}")
            if name in self._taken or name in self.families:
                holder = self._taken.get(name, "this plugin itself")
                raise ValueError(f"{name} is converted already, by {holder}")
        self.families.update(dict.fromkeys(architectures, family))


class _Hooks:
    """The hooks that the converter calls."""

    @hookspec
    def mofa_register_families(self, registry: FamilyRegistry) -> None:
        """Register model families: call ``registry.register(family, *architectures)``."""


@dataclass(frozen=True)
class Discovered:
    """What the installed plugins bring, by class of transformers."""

    families: Mapping[str, type[Family]] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)
    """Name and version of the distribution that brings a class."""
    problems: tuple[str, ...] = ()
    """Plugins that are not in use, each with the reason."""


@dataclass(frozen=True)
class Supported:
    """A class of transformers that can be converted."""

    name: str
    architecture: str
    """llama.cpp's name."""
    source: str
    """The distribution that brings the family."""


def discover() -> Discovered:
    """Ask every installed plugin. Nothing that a plugin does raises from here."""
    taken = dict.fromkeys(known(), OWN_DISTRIBUTION)
    families: dict[str, type[Family]] = {}
    sources: dict[str, str] = {}
    problems: list[str] = []
    for point in sorted(entry_points(group=PROJECT_NAME), key=_identity):
        source = _source(point)
        if point.dist is not None and point.dist.name == OWN_DISTRIBUTION:
            continue
        try:
            found = _ask(point.load(), {**taken, **sources})
        # A plugin is foreign code: whatever it raises must not cost the user the other families.
        except (Exception, SystemExit) as error:  # noqa: BLE001
            problems.append(f"the plugin {point.name!r} of {source}: {_reason(error)}")
            logger.warning("model families not in use: %s", problems[-1])
            continue
        families.update(found)
        sources.update(dict.fromkeys(found, source))
    return Discovered(families, sources, tuple(problems))


def supported() -> tuple[tuple[Supported, ...], tuple[str, ...]]:
    """Everything that can be converted, by name, and what is wrong with plugins."""
    found = discover()
    ours = [Supported(name, it.architecture, OWN_DISTRIBUTION) for name, it in known().items()]
    others = [
        Supported(name, it.architecture, found.sources[name]) for name, it in found.families.items()
    ]
    return tuple(sorted([*ours, *others], key=lambda entry: entry.name)), found.problems


def _ask(plugin: Any, taken: Mapping[str, str]) -> dict[str, type[Family]]:
    """The families of one plugin; one without the hook has none."""
    # A manager for each: what one plugin does to it cannot touch another.
    manager = pluggy.PluginManager(PROJECT_NAME)
    manager.add_hookspecs(_Hooks)
    manager.register(plugin)
    registry = FamilyRegistry(taken)
    manager.hook.mofa_register_families(registry=registry)
    return registry.families


def _identity(point: EntryPoint) -> tuple[str, str, str]:
    return _source(point), point.name, point.value


def _source(point: EntryPoint) -> str:
    if point.dist is None:
        return "an unknown distribution"
    return f"{point.dist.name} {point.dist.version}"


def _reason(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__

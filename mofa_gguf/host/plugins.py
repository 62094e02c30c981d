"""Plugins as entry points bring them: loading one, and saying what is wrong with it."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import EntryPoint

from mofa_gguf.contract.errors import ConfigError


@dataclass(frozen=True)
class PluginProblem:
    """Why a plugin is not in use; ``error`` is the exception behind ``reason``."""

    plugin: str
    distribution: str | None
    version: str | None
    reason: str
    error: BaseException

    def __str__(self) -> str:
        return f"{describe_plugin(self.plugin, self.distribution, self.version)}: {self.reason}"


def distribution_of(point: EntryPoint) -> tuple[str | None, str | None]:
    """Name and version of the distribution that brings an entry point."""
    if point.dist is None:
        return None, None
    return point.dist.name, point.dist.version


def identity_of(point: EntryPoint) -> tuple[str, str, str]:
    """What tells one plugin from another, and orders them."""
    return distribution_of(point)[0] or "", point.name, point.value


def describe_plugin(name: str, distribution: str | None, version: str | None) -> str:
    """A plugin as a sentence names it."""
    if distribution is None:
        return f"the plugin {name!r}"
    return f"the plugin {name!r} of {distribution} {version}"


def import_plugin(point: EntryPoint) -> object:
    """The plugin an entry point names.

    Raises:
        ConfigError: it cannot be imported, or its module lacks the named attribute.
        Exception: whatever the module raises while it is imported.
    """
    try:
        return point.load()
    except ImportError as error:
        raise ConfigError(f"{point.value} cannot be imported: {one_line(error)}") from error
    except AttributeError as error:
        raise ConfigError(f"{point.value} cannot be loaded: {one_line(error)}") from error


def reason_of(error: BaseException) -> str:
    """Why a plugin is not in use, in one line."""
    if isinstance(error, ConfigError):
        return error.message
    return f"it raised {type(error).__name__}: {one_line(error)}"


def one_line(error: BaseException) -> str:
    """An error's text without line breaks; its class where it has none."""
    return " ".join(str(error).split()) or type(error).__name__

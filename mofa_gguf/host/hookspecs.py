"""The hooks a MoFA plugin can implement: the whole contract of a plugin author.

A plugin is a module (or object) named by an entry point of the group "mofa":

    [project.entry-points.mofa]
    acme = "acme_mofa.plugin"

and in it:

    from mofa_gguf.host import hookimpl

    @hookimpl
    def mofa_register_providers(registry):
        registry.register("acme", make_acme_provider, description="Acme's models")

Importing the module should be cheap: import a backend inside the factory, not beside it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from mofa_gguf.host.registry import ProviderRegistry

PROJECT_NAME = "mofa"
"""Name of the pluggy project and of the entry-point group."""

hookspec = pluggy.HookspecMarker(PROJECT_NAME)
hookimpl = pluggy.HookimplMarker(PROJECT_NAME)


@hookspec
def mofa_register_providers(registry: ProviderRegistry) -> None:
    """Register provider kinds: call ``registry.register(kind, factory, ...)`` for each."""


@hookspec
def mofa_register_families(registry: object) -> None:
    """Register model families: the converter asks, and hands its ``FamilyRegistry``.

    Specified in ``mofa_gguf.convert.plugins``; named here so that a plugin may have both hooks, or
    only this one.
    """

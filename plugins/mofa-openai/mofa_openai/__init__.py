"""The neighbours as MoFA providers: every server that speaks OpenAI's API, through its client."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mofa_openai.provider import OpenAIProvider
    from mofa_openai.settings import OpenAIConfig

__all__ = ["OpenAIConfig", "OpenAIProvider"]

_HOMES = {"OpenAIConfig": "mofa_openai.settings", "OpenAIProvider": "mofa_openai.provider"}


def __getattr__(name: str) -> object:
    """Import a public name when it is first used: finding the plugin must not load the client."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)

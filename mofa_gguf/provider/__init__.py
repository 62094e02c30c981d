"""GGUFProvider: MoFA's contract on one side, the chat and engine rooms on the other."""

from __future__ import annotations

# Commands that only tell what is in a file want a light module of this package.
TYPE_CHECKING = False  # as in typing
if TYPE_CHECKING:
    from typing import Any

    from mofa_gguf.provider.gguf import GGUFProvider

__all__ = ["GGUFProvider"]


def __getattr__(name: str) -> Any:
    """Import the provider when it is first asked for."""
    if name != "GGUFProvider":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from mofa_gguf.provider.gguf import GGUFProvider

    globals()[name] = GGUFProvider
    return GGUFProvider

"""Wrong names answered with the right ones."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``" (did you mean 'gguf'?)"`` when something known is close to ``name``, else nothing."""
    close = get_close_matches(name, list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def listed(names: Iterable[str]) -> str:
    """``"a, b and c"``, or "none"."""
    *most, last = [*names] or ["none"]
    return f"{', '.join(most)} and {last}" if most else last

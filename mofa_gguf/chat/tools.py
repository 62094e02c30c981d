"""What formats need to know of the tools that were offered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def tool_names(tools: Sequence[dict[str, Any]] | None) -> frozenset[str] | None:
    """The names of tools as a template sees them."""
    if tools is None:
        return None
    functions = (tool.get("function", tool) for tool in tools)
    return frozenset(str(f["name"]) for f in functions if isinstance(f, dict) and "name" in f)


def tool_schemas(tools: Sequence[dict[str, Any]] | None) -> dict[str, Any]:
    """The schema of each tool's arguments, by the tool's name."""
    functions = (tool.get("function", tool) for tool in tools or ())
    return {
        str(f["name"]): f.get("parameters")
        for f in functions
        if isinstance(f, dict) and "name" in f
    }

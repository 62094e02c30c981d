"""Tool-call formats: each a module with a ``FORMAT`` in it, found by trying, not by a model's name.

To add one, write its module and name it here; nothing else knows the formats.
"""

from __future__ import annotations

from mofa_gguf.chat.formats import hermes, llama, mistral
from mofa_gguf.chat.formats.base import Call, CallReader, ToolCallFormat

FORMATS: tuple[ToolCallFormat, ...] = (hermes.FORMAT, mistral.FORMAT, llama.FORMAT)
"""All formats, in the order in which a template's calls are tried against them."""

HERMES = hermes.FORMAT
"""The format that tools are described in where a template has none of its own."""

__all__ = ["FORMATS", "HERMES", "Call", "CallReader", "ToolCallFormat"]

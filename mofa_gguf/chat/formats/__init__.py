"""Tool-call formats: each a module with a ``FORMAT`` in it, found by trying, not by a model's name.

To add one, write its module and name it here; nothing else knows the formats.
"""

from __future__ import annotations

from mofa_gguf.chat.formats import (
    fields,
    gemma,
    hermes,
    listed,
    llama,
    mistral,
    named,
    python_calls,
    recipients,
)
from mofa_gguf.chat.formats.base import FREE, Call, CallReader, Opening, Schemas, ToolCallFormat

FORMATS: tuple[ToolCallFormat, ...] = (
    hermes.FORMAT,
    mistral.NAMED_WITH_IDS,
    mistral.NAMED,
    mistral.FORMAT,
    *fields.FORMATS,
    *named.FORMATS,
    *listed.FORMATS,
    gemma.FORMAT,
    python_calls.FORMAT,
    *recipients.FORMATS,
    llama.FORMAT,
)
"""All formats, in the order in which a template's calls are tried against them."""

HERMES = hermes.FORMAT
"""The format that tools are described in where a template has none of its own."""

__all__ = [
    "FORMATS",
    "FREE",
    "HERMES",
    "Call",
    "CallReader",
    "Opening",
    "Schemas",
    "ToolCallFormat",
]

"""What a tool-call format is, and the common ways of writing a call as JSON.

A format is a module with one :class:`ToolCallFormat` in it. Its readers are generators over a
:class:`CallReader`; they say which calls they found and return whether the text was what they
expect. Text in which they found nothing goes into the answer's content as it was.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, NoReturn

from mofa_gguf.chat.cursor import Cursor, Reading


@dataclass(frozen=True)
class Call:
    """A tool call as it was read: ``arguments`` is a JSON object as text, ``id`` may be missing."""

    name: str
    arguments: str
    id: str | None = None


class CallReader:
    """What a format's reader reads from and reports to.

    ``tool_names`` are the tools that were offered, None when that is not known.
    """

    def __init__(
        self,
        cursor: Cursor,
        *,
        report: Callable[[Call], None],
        tool_names: Collection[str] | None = None,
    ) -> None:
        self.cursor = cursor
        self.tool_names = tool_names
        self._report = report

    def found(self, *calls: Call) -> None:
        """These calls, if any, are certain; the text read so far is no content."""
        for call in calls:
            self._report(call)
        self.cursor.mark()


@dataclass(frozen=True, kw_only=True)
class ToolCallFormat:
    """How a family of models writes tool calls.

    ``openers`` are the texts that begin calls wherever they stand; ``read`` reads on from behind
    one of them. ``read_bare``, if there is one, tries an answer's very beginning. Both return
    False when the text since the last call found is no call after all. ``markers`` are all texts
    with a meaning to the format that a vocabulary may hold as control tokens.
    """

    name: str
    openers: tuple[str, ...]
    read: Callable[[CallReader, str], Reading[bool]]
    read_bare: Callable[[CallReader], Reading[bool]] | None = None
    markers: tuple[str, ...] = ()


def calls_of(text: str | None) -> list[Call] | None:
    """The calls in a JSON text: an object, or an array of objects. None if it is anything else."""
    value = load_json(text)
    values = value if isinstance(value, list) else [value]
    calls = [call_of(value) for value in values]
    return [call for call in calls if call is not None] if calls and None not in calls else None


def call_of(value: Any) -> Call | None:
    """The call that an object describes.

    Known shapes: ``{"name", "arguments"}``, ``{"name", "parameters"}``, and either of them
    under ``"function"``. No arguments at all means none are needed.
    """
    if not isinstance(value, dict):
        return None
    inner = value.get("function")
    if isinstance(inner, dict):
        value = {"id": value.get("id"), **inner}
    name, call_id = value.get("name"), value.get("id")
    if not isinstance(name, str) or not name:
        return None
    arguments = arguments_of(value.get("arguments", value.get("parameters")))
    if arguments is None:
        return None
    return Call(name, arguments, call_id if isinstance(call_id, str) and call_id else None)


def arguments_of(value: Any) -> str | None:
    """Arguments as JSON text of an object; None when they are none.

    Some models write the object as a JSON text inside the JSON; that is unpacked.
    """
    if value is None:
        value = {}
    if isinstance(value, str):
        value = load_json(value) if value.strip() else {}
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else None


def load_json(text: str | None) -> Any:
    """The value of a JSON text; None when it is not JSON.

    Raw line breaks and tabs inside strings, a frequent slip of small models, are let through.
    """
    if text is None:
        return None
    try:
        return json.loads(text, strict=False, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return None


def _no_constant(name: str) -> NoReturn:
    # Python reads NaN and Infinity; JSON has neither.
    raise ValueError(f"{name} is not JSON")

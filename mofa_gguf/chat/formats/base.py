"""What a tool-call format is, and the common ways of writing a call as JSON.

A format is a module with one :class:`ToolCallFormat` in it. Its readers are generators over a
:class:`CallReader`; they say which calls they found and return whether the text was what they
expect. Text in which they found nothing goes into the answer's content as it was.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from mofa_gguf.chat.cursor import Cursor, Reading
from mofa_gguf.chat.errors import CallsNotDescribable
from mofa_gguf.chat.formats.grammar import Lark

Schemas = Mapping[str, Any]
"""The JSON schema of each tool's arguments, by the tool's name."""


class _Free:
    """The one value of FREE."""

    def __repr__(self) -> str:
        return "FREE"


FREE: Any = _Free()
"""In place of a tool's schema: a grammar must not look at its arguments."""


@dataclass(frozen=True)
class Opening:
    """A text that only a call begins with.

    ``names`` says what must follow for it to count, with ``{name}`` for the name of a tool. With
    ``at_start`` it counts at the beginning of an answer alone, and with ``in_prompt`` it is the
    prompt that must end with the text, and the answer begins with what follows it.
    """

    text: str
    names: str = ""
    at_start: bool = False
    in_prompt: bool = False


@dataclass(frozen=True)
class Call:
    """A tool call as it was read: ``arguments`` is a JSON object as text, ``id`` may be missing."""

    name: str
    arguments: str
    id: str | None = None


class CallReader:
    """What a format's reader reads from and reports to.

    ``tool_names`` are the tools that were offered, None when that is not known; ``schemas`` are
    the schemas of their arguments, as far as known.
    """

    def __init__(
        self,
        cursor: Cursor,
        *,
        report: Callable[[Call], None],
        think: Callable[[str], None] | None = None,
        tool_names: Collection[str] | None = None,
        schemas: Schemas | None = None,
    ) -> None:
        self.cursor = cursor
        self.tool_names = tool_names
        self.schemas = schemas or {}
        self._report = report
        self._think = think

    def thought(self, text: str) -> None:
        """This text is reasoning."""
        if self._think is not None:
            self._think(text)

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

    Some families also put texts around what they say: ``leads`` may stand at the beginning of an
    answer's text, ``dropped`` anywhere outside of calls. Neither is content.
    """

    name: str
    openers: tuple[str, ...]
    read: Callable[[CallReader, str], Reading[bool]]
    read_bare: Callable[[CallReader], Reading[bool]] | None = None
    markers: tuple[str, ...] = ()
    leads: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    hints: tuple[str, ...] = ()
    """Texts by which a template tells of the format without showing it."""
    frames_text: bool = False
    """Whether plain answers are written in the format too, so that it is read without tools."""
    spelling: tuple[str, ...] = ()
    """Texts of a call exactly as its templates write them: tells apart formats that read alike."""
    openings: tuple[Opening, ...] = ()
    """The texts that only calls begin with, where those are others than ``openers``."""
    in_blocks: bool = False
    """Whether several calls stand behind one opening."""
    describe: Callable[[Lark, Schemas, bool], str] | None = None
    """Writes the rules of one call, or of several, into a grammar; returns the topmost rule."""
    frame: tuple[str, str] = ("", "")
    """The texts before and behind an answer that is no call."""
    resumes: str = ""
    """A text that may stand between reasoning and the rest of the answer."""

    def is_told_of(self, text: str) -> bool:
        """Whether a description of tools names the format's marks."""
        return self.openers[0] in text or any(hint in text for hint in self.hints)

    def calls(self, lark: Lark, schemas: Schemas, *, parallel: bool) -> str:
        """The rule of exactly one valid call of one of these tools, or with ``parallel`` of more.

        Raises CallsNotDescribable when the calls, or some tool's arguments, have no grammar.
        """
        if self.describe is None:
            raise CallsNotDescribable(f"calls in the format {self.name} have no grammar")
        return self.describe(lark, schemas, parallel)


def calls_of(
    text: str | None, convert: Callable[[Any], Call | None] | None = None
) -> list[Call] | None:
    """The calls in a JSON text: an object, or an array of objects. None if it is anything else."""
    value = load_json(text)
    values = value if isinstance(value, list) else [value]
    calls = [(convert or call_of)(value) for value in values]
    return [call for call in calls if call is not None] if calls and None not in calls else None


def call_of(value: Any) -> Call | None:
    """The call that an object describes.

    Known shapes: ``{"name", "arguments"}``, ``{"name", "parameters"}``, ``{"tool_name",
    "parameters"}``, and any of them under ``"function"``. No arguments at all means none are
    needed.
    """
    if not isinstance(value, dict):
        return None
    inner = value.get("function")
    if isinstance(inner, dict):
        value = {"id": value.get("id"), **inner}
    name, call_id = value.get("name", value.get("tool_name")), value.get("id")
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
    return dump_json(value) if isinstance(value, dict) else None


def dump_json(value: Any) -> str | None:
    """A value as JSON text; None when JSON has no such value (a number that overflowed)."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        return text if text.isascii() or _is_unicode(text) else json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        return None


def _is_unicode(text: str) -> bool:
    # Half a surrogate pair, written as an escape, can be in a string but not in UTF-8.
    return not any("\ud800" <= character <= "\udfff" for character in text)


def load_json(text: str | None) -> Any:
    """The value of a JSON text; None when it is not JSON.

    Raw line breaks and tabs inside strings, a frequent slip of small models, are let through. A
    number beyond what a float can hold becomes the largest float.
    """
    if text is None:
        return None
    try:
        return DECODER.decode(text)
    except (ValueError, RecursionError):
        return None


def _finite_float(text: str) -> float:
    largest = sys.float_info.max
    return max(-largest, min(largest, float(text)))


def _no_constant(name: str) -> NoReturn:
    # Python reads NaN and Infinity; JSON has neither.
    raise ValueError(f"{name} is not JSON")


DECODER = json.JSONDecoder(strict=False, parse_constant=_no_constant, parse_float=_finite_float)
"""Reads JSON as :func:`load_json` does."""

"""Formats that are a matter of texts: what stands before, between and behind name and arguments.

A :class:`Layout` holds these texts. From it follow both the reader and the grammar, so a format
of this kind is a few lines of data. White space in the texts is written as the templates write it
and read as it comes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mofa_gguf.chat.cursor import Reading
from mofa_gguf.chat.formats.base import (
    FREE,
    Call,
    CallReader,
    Opening,
    Schemas,
    ToolCallFormat,
    arguments_of,
    load_json,
)
from mofa_gguf.chat.formats.grammar import Lark, repeated

_LINE = re.compile(r"\S+(?: \S+)*")
_NAME = re.compile(r"[^\s<>\"'{}\[\]()|,=:`;]")


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The texts of a format: ``begin (open NAME middle ARGUMENTS close) between (...) end``.

    ``{number}`` in them stands for digits, ``{name}`` for the name once more (only where calls are
    described, not where they are read). ``json_name`` says that the name stands in a JSON
    string. ``also`` are shorter texts that models begin a call with, each an end of ``open``.
    """

    begin: str = ""
    open: str = ""
    middle: str = ""
    close: str = ""
    between: str = ""
    end: str = ""
    json_name: bool = False
    also: tuple[str, ...] = ()

    @property
    def openers(self) -> tuple[str, ...]:
        """The texts that begin calls."""
        found = [first_word(self.begin), first_word(self.open), *self.also]
        return tuple(dict.fromkeys(word for word in found if word))

    @property
    def openings(self) -> tuple[Opening, ...]:
        """The texts that only calls begin with: openers, with what belongs to them in their line.

        ``<invoke`` alone could stand in any text, ``<invoke name="`` hardly.
        """
        lines = (_LINE.match(text.lstrip().partition("{")[0]) for text in (self.begin, self.open))
        found = [line[0] for line in lines if line is not None]
        return tuple(map(Opening, dict.fromkeys([*found, *self.also])))

    @property
    def markers(self) -> tuple[str, ...]:
        """All words of the texts, and what stands in brackets inside them."""
        texts = (self.begin, self.open, self.middle, self.close, self.between, self.end, *self.also)
        return markers_in(*texts)

    @property
    def spelling(self) -> tuple[str, ...]:
        """The texts exactly as they are written."""
        texts = (self.begin, self.open, self.middle, self.close.rstrip(), self.end)
        return tuple(text for text in texts if text and "{number}" not in text)

    def after(self, opener: str) -> str:
        """What is left to come in front of a name when ``opener`` was read."""
        if opener == first_word(self.begin):
            return self.begin.lstrip()[len(opener) :] + self.open
        if opener == first_word(self.open):
            return self.open.lstrip()[len(opener) :]
        return ""

    def describe(
        self, lark: Lark, schemas: Schemas, parallel: bool, body: Callable[[Lark, str, Any], str]
    ) -> str:
        """The rule of all calls; ``body`` describes one tool's arguments with ``close``.

        A call of a tool whose schema is FREE is only described up to its arguments.
        """
        bodies = {
            name: body(lark, name, schema) for name, schema in schemas.items() if schema is not FREE
        }
        free = [name for name in schemas if name not in bodies]
        if not bodies:
            return self._calls(lark, free, first=True)
        first = self._calls(lark, bodies, bodies, first=True)
        later = self._calls(lark, bodies, bodies, first=False) if parallel else ""
        between, end = lark.literal(self.between), lark.literal(self.end)
        calls = repeated(first, between, later, parallel=parallel)
        ways = [f"{calls} {end}".rstrip()]
        if free:
            ways.append(self._calls(lark, free, first=True))
            if parallel:
                ways.append(f"{calls} {between} {self._calls(lark, free, first=False)}")
        return lark.any_of(ways) if len(ways) > 1 else ways[0]

    def _calls(
        self,
        lark: Lark,
        names: Iterable[str],
        bodies: Mapping[str, str] | None = None,
        *,
        first: bool,
    ) -> str:
        """A rule of one call of one of these tools, the first of an answer or a later one."""

        def call(name: str) -> str:
            spelled = json.dumps(name, ensure_ascii=False)[1:-1] if self.json_name else name
            opens = self.open.replace("{name}", name)
            head = spelled + self.middle
            begins = lark.opening(self.begin + opens, head) if first else lark.literal(opens + head)
            return f"{begins} {bodies[name] if bodies is not None else ''}".rstrip() or '""'

        return lark.any_of(call(name) for name in names)

    def describe_json(self, lark: Lark, schemas: Schemas, parallel: bool) -> str:
        """The rule of all calls whose arguments are JSON; for a FREE schema any JSON object."""
        schemas = any_object(schemas)

        def body(lark: Lark, _name: str, schema: Any) -> str:
            return f"{lark.json(closed(schema))} {lark.literal(self.close)}"

        return self.describe(lark, schemas, parallel, body)


Arguments = Callable[[CallReader, str], Reading["str | None"]]


def reads(layout: Layout, arguments: Arguments) -> Callable[[CallReader, str], Reading[bool]]:
    """The reader of a layout; ``arguments`` reads one call's arguments and ``close``."""

    def read(reader: CallReader, opener: str) -> Reading[bool]:
        cursor = reader.cursor
        if not (yield from cursor.expect(layout.after(opener))):
            return False
        while True:
            yield from cursor.whitespace()
            name = yield from cursor.word(_NAME)
            if not name or not (yield from cursor.expect(layout.middle)):
                return False
            found = yield from arguments(reader, name)
            if found is None:
                return False
            reader.found(Call(name, found))
            if not (yield from _another(reader)):
                return True

    def _another(reader: CallReader) -> Reading[bool]:
        cursor = reader.cursor
        yield from maybe(reader, layout.close)
        yield from cursor.whitespace()
        end, between = first_word(layout.end), first_word(layout.between)
        if end and (yield from cursor.match(end)):
            yield from maybe(reader, layout.end.lstrip()[len(end) :])
            return False
        if between and not (yield from cursor.match(between)):
            return False
        yield from cursor.whitespace()
        opener = yield from cursor.match(*filter(None, (first_word(layout.open), *layout.also)))
        if opener is None:
            return False
        # Not certain yet: if no call follows, this was text.
        return (yield from cursor.expect(layout.after(opener) if opener not in layout.also else ""))

    return read


def maybe(reader: CallReader, text: str) -> Reading[None]:
    """Read the words of a text that come next, in their order; what was read is settled."""
    for word in text.split():
        yield from reader.cursor.whitespace()
        if (yield from reader.cursor.match(word)):
            reader.found()


def named_json(name: str, layout: Layout, **more: Any) -> ToolCallFormat:
    """A format that writes a call as its name and a JSON object of arguments."""
    closing = first_word(layout.close) or first_word(layout.end) or None

    def arguments(reader: CallReader, _tool: str) -> Reading[str | None]:
        yield from reader.cursor.whitespace()
        value = load_json((yield from reader.cursor.json_text(end=closing)))
        return arguments_of(value) if isinstance(value, dict) else None

    return from_layout(name, layout, arguments, layout.describe_json, more)


def from_layout(
    name: str,
    layout: Layout,
    arguments: Arguments,
    describe: Callable[[Lark, Schemas, bool], str],
    more: dict[str, Any],
) -> ToolCallFormat:
    """A format of a layout; ``arguments`` and ``describe`` say how arguments look."""
    markers = (*layout.markers, *more.pop("markers", ()))
    return ToolCallFormat(
        name=name,
        openers=layout.openers,
        read=reads(layout, arguments),
        markers=tuple(dict.fromkeys((*markers, *more.get("dropped", ())))),
        describe=describe,
        openings=more.pop("openings", layout.openings),
        in_blocks=more.pop("in_blocks", bool(layout.begin.strip())),
        spelling=(*layout.spelling, *more.pop("spelling", ())),
        **more,
    )


def any_object(schemas: Schemas) -> Schemas:
    """The schemas with those that are FREE as any JSON object."""
    return {name: {"type": "object"} if each is FREE else each for name, each in schemas.items()}


def closed(parameters: Any) -> dict[str, Any]:
    """A tool's schema as an object's, with no properties but the declared ones."""
    schema = dict(parameters) if isinstance(parameters, Mapping) else {}
    schema.setdefault("type", "object")
    open_ended = {"additionalProperties", "patternProperties", "$ref", "anyOf", "oneOf", "allOf"}
    if schema.get("properties") is not None and not open_ended & set(schema):
        schema["additionalProperties"] = False
    return schema


def first_word(text: str) -> str:
    """The text up to its first white space or ``{number}``."""
    words = text.split()
    return words[0].partition("{number}")[0] if words else ""


def markers_in(*texts: str) -> tuple[str, ...]:
    """Words of these texts that a vocabulary may hold as tokens."""
    words = [word for text in texts for word in text.split()]
    inside = [tag for text in texts for tag in re.findall(r"<[^<>\s]+>|\[[^\[\]\s]+\]", text)]
    return tuple(dict.fromkeys(word for word in [*inside, *words] if len(word) > 1))

"""Calls whose arguments stand each between texts of their own, as bare text."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mofa_gguf.chat.cursor import Reading
from mofa_gguf.chat.errors import CallsNotDescribable
from mofa_gguf.chat.formats.base import CallReader, Schemas, ToolCallFormat, dump_json
from mofa_gguf.chat.formats.grammar import Lark
from mofa_gguf.chat.formats.layout import Layout, closed, first_word, from_layout, markers_in
from mofa_gguf.chat.formats.typed import parsed, property_schema, typed, types_of

_HEAD_TYPE = re.compile(r"""\b(?:string|type)=["'](\w+)["']""")
_CDATA = re.compile(r"\s*<!\[CDATA\[(.*)\]\]>\s*", re.DOTALL)
_OBJECT_KEYWORDS = frozenset(
    {"type", "properties", "required", "additionalProperties", "title", "description"}
    | {"$defs", "definitions", "$schema", "$id", "$comment", "default", "examples"}
)


@dataclass(frozen=True, kw_only=True)
class Fields:
    """The texts around each argument: ``open KEY middle VALUE close``.

    ``typed`` are other texts for ``middle``, by the JSON type of the value, where a format tells
    the type: "string" for text, anything else for JSON. ``cdata`` says that a value may stand in a
    CDATA section.
    """

    open: str
    middle: str
    close: str
    typed: Mapping[str, str] = field(default_factory=dict)
    cdata: bool = False


def named_fields(name: str, layout: Layout, fields: Fields, **more: Any) -> ToolCallFormat:
    """A format that writes a call as its name and each argument between tags of its own.

    Values are bare text; the tool's schema tells what they are. Markup in them is not escaped, so
    a value ends at the closing tag behind which the call goes on or ends.
    """

    def arguments(reader: CallReader, tool: str) -> Reading[str | None]:
        return (yield from _read_fields(reader, tool, layout, fields))

    def body(lark: Lark, tool: str, schema: Any) -> str:
        return _describe_fields(lark, tool, schema, layout, fields)

    more["spelling"] = (fields.open, fields.middle, fields.close)
    more["markers"] = (*more.get("markers", ()), *markers_in(fields.open, fields.close))

    def describe(lark: Lark, schemas: Schemas, parallel: bool) -> str:
        return layout.describe(lark, schemas, parallel, body)

    return from_layout(name, layout, arguments, describe, more)


def _read_fields(
    reader: CallReader, tool: str, layout: Layout, fields: Fields
) -> Reading[str | None]:
    cursor = reader.cursor
    parameters = reader.schemas.get(tool)
    opening, ending = first_word(fields.open), first_word(fields.close)
    # A quoted key ends where its quote does; whatever else stands in the tag may tell the type.
    quoted = '"' in fields.middle
    head_end = fields.middle.rpartition('"')[2] if quoted else fields.middle
    head_close = re.split(r"(?<=>)(?=<)", first_word(head_end))[0]
    followers = tuple(word for word in (opening, first_word(layout.close)) if word)
    values: dict[str, Any] = {}
    while True:
        yield from cursor.whitespace()
        if not (yield from cursor.match(opening)):
            break
        yield from cursor.expect(fields.open.lstrip()[len(opening) :])
        head = yield from cursor.until(head_close)
        if head is None or not (yield from cursor.expect(head_end.lstrip()[len(head_close) :])):
            return None
        text = yield from cursor.until(ending, *followers)
        if text is None or not (yield from cursor.expect(fields.close.lstrip()[len(ending) :])):
            return None
        key = head.partition('"')[0] if quoted else head.strip()
        told = _HEAD_TYPE.search(head) if fields.typed else None
        values[key] = _value(text, fields, told[1] if told else None, parameters, key)
    closing = first_word(layout.close)
    if closing and not (yield from cursor.match(closing)) and (yield from cursor.more()):
        return None
    return dump_json(values)


def _value(text: str, fields: Fields, told: str | None, parameters: Any, key: str) -> Any:
    if fields.middle.endswith("\n"):
        text = text.removeprefix("\n")
    if fields.close.startswith("\n"):
        text = text.removesuffix("\n")
    if fields.cdata and (inside := _CDATA.fullmatch(text)):
        text = inside[1]
    if told is not None:
        return text if told in ("string", "true") else parsed(text)
    return typed(text, property_schema(parameters, key), parameters)


def _describe_fields(lark: Lark, tool: str, schema: Any, layout: Layout, fields: Fields) -> str:
    parameters = closed(schema)
    unknown = sorted(set(parameters) - _OBJECT_KEYWORDS)
    if unknown:
        raise CallsNotDescribable(f"arguments under {unknown[0]!r}", tool=tool)
    properties = dict(parameters.get("properties") or {})
    required = parameters.get("required") or []
    for key in required:
        properties.setdefault(key, True)
    parts = []
    for key, each in properties.items():
        if re.search(r'[<>"\n=]', key):
            raise CallsNotDescribable(f"an argument named {key!r}", tool=tool)
        try:
            described = _describe_field(lark, key, each, parameters, fields)
        except CallsNotDescribable as error:
            raise CallsNotDescribable(error.what, tool=tool) from error
        parts.append(described if key in required else f"({described})?")
    return " ".join([*parts, lark.literal(layout.close)])


def _describe_field(lark: Lark, key: str, schema: Any, root: Any, fields: Fields) -> str:
    types = types_of(schema, root)
    schema = schema if isinstance(schema, Mapping) else {}

    def head(kind: str) -> str:
        return lark.literal(f"{fields.open}{key}{fields.typed.get(kind, fields.middle)}")

    if types == {"string"} or ("enum" in schema and not fields.typed):
        without = ("<![CDATA[",) if fields.cdata else ()
        return f"{head('string')} {lark.text(schema, fields.close, without=without)}"
    if set(schema) <= {"type", "title", "description", "default", "examples"} and (
        "string" in types
    ):
        # Any text is valid: what does not fit the other types is a string.
        return f"{head('string')} {lark.text({}, fields.close)}"
    others = sorted(types - {"string"} - ({"integer"} if "number" in types else set()))
    if not fields.typed:
        # A string would be ambiguous beside the rest.
        narrowed = _without_strings(schema, types)
        return f"{head('')} {_json(lark, narrowed, root)} {lark.literal(fields.close)}"
    if len(others) != 1:
        raise CallsNotDescribable(f"an argument {key!r} of several types")
    value = _json(lark, _without_strings(schema, types), root)
    kind = "number" if others[0] == "integer" else others[0]
    return f"{head(kind)} {value} {lark.literal(fields.close)}"


def _without_strings(schema: Mapping[str, Any], types: frozenset[str]) -> Mapping[str, Any]:
    if "string" not in types:
        return schema
    narrowed = dict(schema)
    if isinstance(schema.get("type"), list):
        narrowed["type"] = [name for name in schema["type"] if name != "string"]
    for keyword in ("anyOf", "oneOf"):
        if isinstance(schema.get(keyword), list):
            narrowed[keyword] = [
                each for each in schema[keyword] if "string" not in types_of(each, schema)
            ]
            if narrowed[keyword]:
                return narrowed
    if isinstance(schema.get("type"), list) and narrowed["type"]:
        return narrowed
    raise CallsNotDescribable("an argument that is text or something else")


def _json(lark: Lark, schema: Mapping[str, Any], root: Any) -> str:
    shared = {key: root[key] for key in ("$defs", "definitions") if key in root}
    return lark.json({**shared, **schema})

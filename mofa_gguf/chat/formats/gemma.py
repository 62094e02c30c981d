"""Gemma 4: ``<|tool_call>call:name{key:<|"|>text<|"|>,other:[1,true]}<tool_call|>``.

Format: the chat templates of Gemma 4. Text stands between ``<|"|>`` marks as it is, keys are bare.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from mofa_gguf.chat.cursor import Reading
from mofa_gguf.chat.errors import CallsNotDescribable
from mofa_gguf.chat.formats.base import Call, CallReader, Schemas, ToolCallFormat, dump_json
from mofa_gguf.chat.formats.grammar import Lark
from mofa_gguf.chat.formats.layout import Layout, closed
from mofa_gguf.chat.formats.typed import parsed, resolve, types_of

_OPEN, _CLOSE, _QUOTE = "<|tool_call>", "<tool_call|>", '<|"|>'
_MAX_DEPTH = 64
_NAME = re.compile(r"[^\s{}<>]")
_KEY = re.compile(r"[^:{}\[\]<>]")
_BARE = re.compile(r"[^,{}\[\]<>]")
_LAYOUT = Layout(open=f"{_OPEN}call:", close=_CLOSE)


class _NoValue(Exception):
    """What came is no value."""


def _read(reader: CallReader, _opener: str) -> Reading[bool]:
    cursor = reader.cursor
    if not (yield from cursor.expect("call:")):
        return False
    name = yield from cursor.word(_NAME)
    yield from cursor.whitespace()
    try:
        arguments = dump_json((yield from _value(reader, 0)))
    except _NoValue:
        return False
    if not name or arguments is None or not arguments.startswith("{"):
        return False
    reader.found(Call(name, arguments))
    yield from cursor.whitespace()
    yield from cursor.match(_CLOSE)
    return True


def _value(reader: CallReader, depth: int) -> Reading[Any]:
    cursor = reader.cursor
    if depth > _MAX_DEPTH:
        raise _NoValue
    opened = yield from cursor.match(_QUOTE, "{", "[")
    if opened == _QUOTE:
        return (yield from _text(reader))
    if opened == "{":
        return (yield from _object(reader, depth))
    if opened == "[":
        return (yield from _array(reader, depth))
    word = yield from cursor.word(_BARE)
    if not word.strip():
        raise _NoValue
    return parsed(word.strip())


def _text(reader: CallReader) -> Reading[str]:
    text = yield from reader.cursor.until(_QUOTE)
    if text is None:
        raise _NoValue
    return text


def _object(reader: CallReader, depth: int) -> Reading[dict[str, Any]]:
    cursor = reader.cursor
    values: dict[str, Any] = {}
    yield from cursor.whitespace()
    if (yield from cursor.match("}")):
        return values
    while True:
        yield from cursor.whitespace()
        if (yield from cursor.match(_QUOTE)):
            key = yield from _text(reader)
        else:
            key = (yield from cursor.word(_KEY)).strip().strip('"')
        if not (yield from cursor.expect(":")):
            raise _NoValue
        yield from cursor.whitespace()
        values[key] = yield from _value(reader, depth + 1)
        yield from cursor.whitespace()
        separator = yield from cursor.match(",", "}")
        if separator is None:
            raise _NoValue
        if separator == "}":
            return values


def _array(reader: CallReader, depth: int) -> Reading[list[Any]]:
    cursor = reader.cursor
    values: list[Any] = []
    yield from cursor.whitespace()
    if (yield from cursor.match("]")):
        return values
    while True:
        yield from cursor.whitespace()
        values.append((yield from _value(reader, depth + 1)))
        yield from cursor.whitespace()
        separator = yield from cursor.match(",", "]")
        if separator is None:
            raise _NoValue
        if separator == "]":
            return values


def _describe(lark: Lark, schemas: Schemas, parallel: bool) -> str:
    def body(lark: Lark, name: str, schema: Any) -> str:
        parameters = closed(schema)
        try:
            return f"{_describe_object(lark, parameters, parameters, 0)} {lark.literal(_CLOSE)}"
        except CallsNotDescribable as error:
            raise CallsNotDescribable(error.what, tool=name) from error

    return _LAYOUT.describe(lark, schemas, parallel, body)


def _describe_value(lark: Lark, schema: Any, root: Any, depth: int) -> str:
    schema = schema if isinstance(schema, Mapping) else {}
    if depth > _MAX_DEPTH:
        raise CallsNotDescribable("a schema that refers to itself")
    if set(schema) & {"$ref"}:
        return _describe_value(lark, resolve(str(schema["$ref"]), root), root, depth + 1)
    choices = schema.get("anyOf", schema.get("oneOf"))
    if isinstance(choices, list):
        return lark.any_of(_describe_value(lark, each, root, depth + 1) for each in choices)
    types = types_of(schema, root)
    if types == {"string"}:
        return f"{lark.literal(_QUOTE)} {lark.text(schema, _QUOTE)}"
    if types == {"object"}:
        return _describe_object(lark, schema, root, depth)
    if types == {"array"}:
        return _describe_array(lark, schema, root, depth)
    if types <= {"number", "integer", "boolean", "null"}:
        return lark.json(schema)
    if set(schema) <= {"description", "title", "default", "examples"}:
        return lark.any_of(
            [f"{lark.literal(_QUOTE)} {lark.text({}, _QUOTE)}", '"true"', '"false"', '"null"']
        )
    raise CallsNotDescribable("an argument of several types")


def _describe_object(lark: Lark, schema: Mapping[str, Any], root: Any, depth: int) -> str:
    unknown = set(schema) - {"type", "properties", "required", "additionalProperties", "title"}
    unknown -= {"description", "default", "examples", "$defs", "definitions", "$schema"}
    if unknown:
        raise CallsNotDescribable(f"arguments under {min(unknown)!r}")
    required = list(schema.get("required") or [])
    properties = {**dict.fromkeys(required, True), **(schema.get("properties") or {})}
    described = []
    for key, each in properties.items():
        value = _describe_value(lark, each, root, depth + 1)
        described.append((key in required, f"{lark.literal(f'{key}:')} {value}"))
    return f'"{{" {lark.separated(described, ",")} "}}"'


def _describe_array(lark: Lark, schema: Mapping[str, Any], root: Any, depth: int) -> str:
    unknown = set(schema) - {"type", "items", "minItems", "maxItems", "title", "description"}
    unknown -= {"default", "examples"}
    if unknown:
        raise CallsNotDescribable(f"a list under {min(unknown)!r}")
    item = lark.any_of([_describe_value(lark, schema.get("items", True), root, depth + 1)])
    low, high = int(schema.get("minItems", 0)), schema.get("maxItems")
    if high == 0:
        return '"[]"'
    most = "" if high is None else int(high) - 1
    more = f'("," {item}){{{max(low - 1, 0)},{most}}}'
    return f'"[" {item} {more} "]"' if low else f'("[]" | "[" {item} {more} "]")'


FORMAT = ToolCallFormat(
    name="gemma",
    openers=(_OPEN,),
    read=_read,
    markers=(_OPEN, _CLOSE, _QUOTE),
    describe=_describe,
)

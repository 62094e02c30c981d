"""Mistral: ``[TOOL_CALLS]`` and a list of calls, or (since v11) a name and its arguments.

``[TOOL_CALLS][{"name": ..., "arguments": {...}, "id": ...}]`` up to tokenizer version 7,
``[TOOL_CALLS]name[CALL_ID]id[ARGS]{...}`` or ``[TOOL_CALLS]name[ARGS]{...}`` later, repeated for
each call. Format: https://github.com/mistralai/mistral-common (tokenizers/instruct).
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from mofa_gguf.chat.cursor import Reading
from mofa_gguf.chat.formats.base import (
    Call,
    CallReader,
    Schemas,
    ToolCallFormat,
    arguments_of,
    calls_of,
    load_json,
)
from mofa_gguf.chat.formats.grammar import Lark
from mofa_gguf.chat.formats.layout import Layout, any_object, closed

_OPEN, _ID, _ARGS = "[TOOL_CALLS]", "[CALL_ID]", "[ARGS]"
_NAME = re.compile(r"[\w.\-]")


def _read(reader: CallReader, _opener: str) -> Reading[bool]:
    yield from reader.cursor.whitespace()
    if (yield from reader.cursor.match("[")):
        return (yield from _read_list(reader))
    return (yield from _read_named(reader))


def _read_list(reader: CallReader) -> Reading[bool]:
    cursor = reader.cursor
    yield from cursor.whitespace()
    while True:
        calls = calls_of((yield from cursor.json_text(end="]")))
        if calls is None:
            return False
        reader.found(*calls)
        yield from cursor.whitespace()
        separator = yield from cursor.match(",", "]")
        if separator != ",":
            return True
        yield from cursor.whitespace()
        reader.found()


def _read_named(reader: CallReader) -> Reading[bool]:
    cursor = reader.cursor
    name = yield from cursor.word(_NAME)
    call_id = None
    if (yield from cursor.match(_ID)):
        call_id = yield from cursor.word(_NAME)
    yield from cursor.match(_ARGS)
    yield from cursor.whitespace()
    arguments = load_json((yield from cursor.json_text()))
    if not name or not isinstance(arguments, dict):
        return False
    reader.found(Call(name, arguments_of(arguments) or "{}", call_id or None))
    return True


_ID_LETTERS = "/[a-zA-Z0-9]{9}/"


def _describe_list(lark: Lark, schemas: Schemas, parallel: bool) -> str:
    layout = Layout(
        begin=f"{_OPEN}[",
        open='{"name": "',
        middle='", "arguments": ',
        between=", ",
        end="]",
        json_name=True,
    )
    close = " ".join([lark.literal(', "id": "'), _ID_LETTERS, lark.literal('"}')])
    return layout.describe(
        lark,
        any_object(schemas),
        parallel,
        lambda lark, _name, schema: f"{lark.json(closed(schema))} {close}",
    )


def _describe_named(lark: Lark, schemas: Schemas, parallel: bool) -> str:
    return Layout(open=_OPEN, middle=_ARGS).describe_json(lark, schemas, parallel)


def _describe_named_with_ids(lark: Lark, schemas: Schemas, parallel: bool) -> str:
    def body(lark: Lark, _name: str, schema: Any) -> str:
        return f"{_ID_LETTERS} {lark.literal(_ARGS)} {lark.json(closed(schema))}"

    return Layout(open=_OPEN, middle=_ID).describe(lark, any_object(schemas), parallel, body)


FORMAT = ToolCallFormat(
    name="mistral",
    openers=(_OPEN,),
    read=_read,
    markers=(_OPEN,),
    spelling=(f"{_OPEN}[",),
    describe=_describe_list,
    in_blocks=True,
)
NAMED = replace(
    FORMAT,
    name="mistral",
    markers=(_OPEN, _ARGS),
    spelling=(_ARGS,),
    describe=_describe_named,
    in_blocks=False,
)
NAMED_WITH_IDS = replace(
    FORMAT,
    name="mistral",
    markers=(_OPEN, _ID, _ARGS),
    spelling=(_ID, _ARGS),
    describe=_describe_named_with_ids,
    in_blocks=False,
)

"""Llama 3.x: ``{"name": ..., "parameters": {...}}`` as the whole answer, or behind a python tag.

Format: https://www.llama.com/docs/model-cards-and-prompt-formats/llama3_1/ (JSON based tool
calling, built-in tools). A bare object is a call only if it names a tool that was offered: models
also answer in JSON when they are asked to.
"""

from __future__ import annotations

import ast
import json
import re

from mofa_gguf.chat.cursor import Reading
from mofa_gguf.chat.formats.base import (
    Call,
    CallReader,
    Opening,
    Schemas,
    ToolCallFormat,
    calls_of,
)
from mofa_gguf.chat.formats.grammar import Lark
from mofa_gguf.chat.formats.layout import Layout

_PYTHON_TAG = "<|python_tag|>"
_KEYS = frozenset({"type", "id", "function", "name", "parameters", "arguments"})


def _read_tagged(reader: CallReader, _opener: str) -> Reading[bool]:
    yield from reader.cursor.whitespace()
    if not (yield from reader.cursor.more()):
        return False
    if reader.cursor.ahead[0] in "{[":
        return (yield from _read_objects(reader, offered_only=False))
    call = _built_in_call((yield from reader.cursor.rest()))
    if call is None:
        return False
    reader.found(call)
    return True


def _read_bare(reader: CallReader) -> Reading[bool]:
    if reader.tool_names is None:
        return False
    yield from reader.cursor.whitespace()
    return (yield from _read_objects(reader, offered_only=True))


def _read_objects(reader: CallReader, *, offered_only: bool) -> Reading[bool]:
    """Objects one after the other, ``;`` or ``,`` between them."""
    cursor = reader.cursor
    while True:
        if not (yield from _looks_like_call(reader)):
            return False
        calls = calls_of((yield from cursor.json_text()))
        if calls is None or (offered_only and not _are_offered(calls, reader)):
            return False
        reader.found(*calls)
        yield from cursor.whitespace()
        separator = yield from cursor.match(";", ",")
        if separator is None:
            # What follows is ordinary text, or nothing.
            more = yield from cursor.more()
            if not more or cursor.ahead[0] != "{":
                return True
        yield from cursor.whitespace()
        reader.found()


def _looks_like_call(reader: CallReader) -> Reading[bool]:
    """Whether an object comes whose first key a call could have, looked up without reading.

    A JSON answer with other keys is released at once instead of at its end.
    """
    cursor = reader.cursor
    while True:
        match = re.match(r'\[?\s*\{\s*"([a-z]*)', cursor.ahead)
        if match is None:
            possible = re.fullmatch(r"\[?\s*\{?\s*", cursor.ahead) is not None
        elif match.end() < len(cursor.ahead):
            return match[1] in _KEYS and cursor.ahead[match.end()] == '"'
        else:
            possible = any(key.startswith(match[1]) for key in _KEYS)
        if not possible or cursor.final:
            return False
        yield


def _are_offered(calls: list[Call], reader: CallReader) -> bool:
    names = reader.tool_names or ()
    return all(call.name in names for call in calls)


def _built_in_call(text: str) -> Call | None:
    """``brave_search.call(query="...")``: a call of a built-in tool, with literal arguments."""
    try:
        call = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    if not (
        isinstance(call, ast.Call)
        and not call.args
        and isinstance(call.func, ast.Attribute)
        and call.func.attr == "call"
        and isinstance(call.func.value, ast.Name)
    ):
        return None
    try:
        arguments = {key.arg: ast.literal_eval(key.value) for key in call.keywords if key.arg}
        return Call(call.func.value.id, json.dumps(arguments, ensure_ascii=False))
    except (ValueError, TypeError, RecursionError, MemoryError):
        return None


def _describe(lark: Lark, schemas: Schemas, parallel: bool) -> str:
    layout = Layout(
        begin=_PYTHON_TAG if lark.written == _PYTHON_TAG else "",
        open='{"name": "',
        middle='", "parameters": ',
        close="}",
        between="; ",
        json_name=True,
    )
    return layout.describe_json(lark, schemas, parallel)


FORMAT = ToolCallFormat(
    name="llama",
    describe=_describe,
    # The grammar is that of the bare object; behind the tag it is the same.
    openings=(
        Opening(_PYTHON_TAG),
        Opening('{"name": "', names='{name}"', at_start=True),
    ),
    in_blocks=True,
    openers=(_PYTHON_TAG,),
    read=_read_tagged,
    read_bare=_read_bare,
    markers=(_PYTHON_TAG,),
)

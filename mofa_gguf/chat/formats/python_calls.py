"""LFM2: ``<|tool_call_start|>[name(key='text', other=1)]<|tool_call_end|>``.

Format: the chat templates of LFM2 and LFM2.5. They write text between single quotes without
escaping it, models mostly write Python: both are read.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping
from typing import Any

from mofa_gguf.chat.cursor import Reading
from mofa_gguf.chat.errors import CallsNotDescribable
from mofa_gguf.chat.formats.base import (
    DECODER,
    Call,
    CallReader,
    Schemas,
    ToolCallFormat,
    calls_of,
    dump_json,
    load_json,
)
from mofa_gguf.chat.formats.grammar import Lark
from mofa_gguf.chat.formats.layout import Layout, closed
from mofa_gguf.chat.formats.typed import parsed, property_schema, types_of

_OPEN, _CLOSE = "<|tool_call_start|>", "<|tool_call_end|>"
_LAYOUT = Layout(begin=f"{_OPEN}[", middle="(", close=")", between=", ", end=f"]{_CLOSE}")
_MAX_TRIES = 8
_CONSTANTS = {"true": True, "false": False, "null": None}
_CALL = re.compile(r"\s*,?\s*([\w.\-]+)\(\s*")
_BARE, _END = re.compile(r"[^,()]*"), re.compile(r"\s*\)")
_KEY = re.compile(r"\s*,?\s*([\w\-]+)\s*=\s*")
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_ESCAPES = "\\'\"abfnrtvxuUN01234567\n"
# Text between quotes that are not escaped inside: it ends where an argument or a call may end.
_QUOTED = re.compile(
    r"""(['"])(.*?)\1(?=\s*,\s*[\w\-]+\s*=|\s*\)\s*(?:\]\s*$|,\s*[\w.\-]+\())""", re.DOTALL
)


def _read(reader: CallReader, _opener: str) -> Reading[bool]:
    cursor = reader.cursor
    start = len(cursor.read)
    for _ in range(_MAX_TRIES):
        ended = yield from cursor.until(_CLOSE)
        calls = python_calls(cursor.read[start:].strip().removesuffix(_CLOSE))
        if calls:
            reader.found(*calls)
            return True
        if ended is None:
            break
    return False


def python_calls(text: str) -> list[Call] | None:
    """The calls in a Python list of calls, or in JSON; None when it is neither."""
    text = text.strip()
    if text[:1] == "{" or text[:2].replace(" ", "") == "[{":
        return calls_of(text)
    try:
        tree = ast.parse(_ESCAPE.sub(_keep_backslash, text), mode="eval").body
        items = tree.elts if isinstance(tree, ast.List) else [tree]
        return [_call(item) for item in items] or None
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        return _loose_calls(text)


def _keep_backslash(escape: re.Match[str]) -> str:
    # Python keeps the backslash of an unknown escape too, but complains about it.
    return escape[0] if escape[1] in _ESCAPES else f"\\{escape[0]}"


def _call(node: ast.expr) -> Call:
    if not isinstance(node, ast.Call) or node.args:
        raise ValueError("no call with named arguments")
    arguments = {key.arg: _constant(key.value) for key in node.keywords if key.arg}
    text = dump_json(arguments)
    if text is None:
        raise ValueError("a value that JSON does not have")
    return Call(ast.unparse(node.func), text)


def _constant(node: ast.expr) -> Any:
    for name in ast.walk(node):
        if isinstance(name, ast.Name) and name.id not in _CONSTANTS:
            raise ValueError(f"{name.id} is no value")
    return ast.literal_eval(_Constants().visit(node))


class _Constants(ast.NodeTransformer):
    """JSON's constants as Python's: models mix them."""

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return ast.copy_location(ast.Constant(_CONSTANTS[node.id]), node)


def _loose_calls(text: str) -> list[Call] | None:
    """Calls whose quotes are not escaped."""
    if not text.startswith("["):
        return None
    calls, at = [], 1
    while found := _CALL.match(text, at):
        name, at = found[1], found.end()
        values: dict[str, Any] = {}
        while key := _KEY.match(text, at):
            quoted = _QUOTED.match(text, key.end())
            if quoted:
                values[key[1]], at = quoted[2], quoted.end()
                continue
            values[key[1]], at = _loose_value(text, key.end())
        end = _END.match(text, at)
        arguments = dump_json(values)
        if end is None or arguments is None or load_json(arguments) is None:
            return None
        calls.append(Call(name, arguments))
        at = end.end()
    return calls if calls and text[at:].strip() == "]" else None


def _loose_value(text: str, at: int) -> tuple[Any, int]:
    """The value of an argument that is no text, and where it ends."""
    if text[at : at + 1] in ("{", "["):
        try:
            return DECODER.raw_decode(text, at)
        except (ValueError, RecursionError):
            pass
    bare = _BARE.match(text, at)
    assert bare is not None
    return parsed(bare[0].strip()), bare.end()


def _describe(lark: Lark, schemas: Schemas, parallel: bool) -> str:
    def body(lark: Lark, name: str, schema: Any) -> str:
        try:
            return f"{_arguments(lark, closed(schema))} {lark.literal(_LAYOUT.close)}"
        except CallsNotDescribable as error:
            raise CallsNotDescribable(error.what, tool=name) from error

    return _LAYOUT.describe(lark, schemas, parallel, body)


def _arguments(lark: Lark, parameters: Mapping[str, Any]) -> str:
    unknown = set(parameters) - {"type", "properties", "required", "additionalProperties", "title"}
    unknown -= {"description", "default", "examples", "$defs", "definitions", "$schema"}
    if unknown:
        raise CallsNotDescribable(f"arguments under {min(unknown)!r}")
    required = list(parameters.get("required") or [])
    properties = {**dict.fromkeys(required, True), **(parameters.get("properties") or {})}
    items = []
    for key in properties:
        if not key.isidentifier():
            raise CallsNotDescribable(f"an argument named {key!r}")
        value = _value(lark, property_schema(parameters, key), parameters)
        items.append((key in required, f"{lark.literal(key + '=')} {value}"))
    return lark.separated(items, ", ")


def _value(lark: Lark, schema: Any, root: Mapping[str, Any]) -> str:
    types = types_of(schema, root)
    schema = schema if isinstance(schema, Mapping) else {}
    if types == {"string"}:
        if "enum" in schema or "const" in schema:
            values = schema.get("enum", [schema.get("const")])
            return lark.any_of(lark.literal(repr(value)) for value in values)
        return f'"\'" {lark.text(schema, chr(39), without=(chr(92), chr(10)))}'
    if types == {"boolean"}:
        return '("True" | "False")'
    if types == {"null"}:
        return '"None"'
    if "string" in types and set(schema) <= {"type", "title", "description", "default"}:
        return f'"\'" {lark.text({}, chr(39), without=(chr(92), chr(10)))}'
    if types <= {"number", "integer", "object", "array", "boolean", "null"}:
        shared = {key: root[key] for key in ("$defs", "definitions") if key in root}
        return lark.json({**shared, **schema})
    raise CallsNotDescribable(f"an argument of the types {json.dumps(sorted(types))}")


FORMAT = ToolCallFormat(
    name="lfm2",
    openers=(_OPEN,),
    read=_read,
    markers=(_OPEN, _CLOSE),
    hints=("<|tool_list_start|>", "List of tools: ["),
    in_blocks=True,
    describe=_describe,
)

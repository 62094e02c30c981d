"""Calls written as JSON objects: one between tags, or all in a list between tags.

Formats: the chat templates that Apertus, Nemotron, Command R, Granite 3, Phi-4 mini, GigaChat and
FireFunction are published with. The forms of Hermes and Mistral have modules of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mofa_gguf.chat.cursor import Reading
from mofa_gguf.chat.formats.base import (
    Call,
    CallReader,
    Opening,
    Schemas,
    ToolCallFormat,
    arguments_of,
    call_of,
    calls_of,
)
from mofa_gguf.chat.formats.grammar import Lark
from mofa_gguf.chat.formats.layout import Layout, first_word, maybe

Convert = Callable[[Any], "Call | None"]


def listed(name: str, layout: Layout, convert: Convert = call_of, **more: Any) -> ToolCallFormat:
    """A format that writes JSON objects; ``convert`` finds the call in one.

    If ``begin`` ends with a bracket, the calls stand in a list.
    """
    opener = first_word(layout.begin).removesuffix("[")
    closer = first_word(layout.end.lstrip().removeprefix("]"))

    def read(reader: CallReader, _opener: str) -> Reading[bool]:
        cursor = reader.cursor
        yield from cursor.whitespace()
        in_list = (yield from cursor.match("[")) is not None
        while True:
            yield from cursor.whitespace()
            end = "]" if in_list else closer or None
            calls = calls_of((yield from cursor.json_text(end=end)), convert)
            if calls is None:
                return False
            reader.found(*calls)
            yield from cursor.whitespace()
            if not in_list:
                # Some put one object after the other between their tags.
                if closer and (yield from cursor.more()) and cursor.ahead[0] == "{":
                    continue
                break
            if (yield from cursor.match(",", "]")) != ",":
                break
            reader.found()
        yield from maybe(reader, closer)
        return True

    def describe(lark: Lark, schemas: Schemas, parallel: bool) -> str:
        several = parallel and (layout.begin.rstrip().endswith("[") or bool(closer))
        return layout.describe_json(lark, schemas, several)

    return ToolCallFormat(
        name=name,
        openers=(opener,),
        read=read,
        markers=tuple(dict.fromkeys((opener, *filter(None, [closer]), *more.get("dropped", ())))),
        describe=describe,
        in_blocks=bool(layout.begin.rstrip().endswith("[")),
        # A mere word could stand in any text.
        openings=(Opening(f"{opener}["),) if opener.isalnum() else (),
        spelling=layout.spelling,
        **more,
    )


def _single_key(value: Any) -> Call | None:
    """``{"name": {...}}``, the form of Apertus."""
    if not isinstance(value, dict) or len(value) != 1:
        return None
    ((name, given),) = value.items()
    arguments = arguments_of(given)
    return Call(name, arguments) if name and arguments is not None else None


def keyed_json(name: str, layout: Layout, *, name_key: str, arguments_key: str) -> ToolCallFormat:
    """A format of JSON objects that hold name and arguments under keys of their own."""
    # The object itself is JSON; what stands around each one are marks.
    mark, brace, rest = layout.open.rpartition("{")
    inside, last_brace, after = layout.close.rpartition("}")
    inner = Layout(
        begin=layout.begin + mark,
        open=brace + rest,
        middle=layout.middle,
        close=inside + last_brace,
        between=after + layout.between + mark,
        end=after + layout.end,
        json_name=True,
    )

    def convert(value: Any) -> Call | None:
        if not isinstance(value, dict):
            return None
        return call_of({"name": value.get(name_key), "arguments": value.get(arguments_key)})

    return listed(name, inner, convert)


_NAMED = {"open": '{"name": "', "middle": '", "arguments": ', "close": "}", "json_name": True}
_ACTION = {
    "begin": "<|START_ACTION|>[\n    ",
    "open": '{"tool_call_id": "{number}", "tool_name": "',
    "middle": '", "parameters": ',
    "close": "}",
    "between": ",\n    ",
    "end": "\n]<|END_ACTION|>",
    "json_name": True,
}


def _list_between(begin: str, end: str) -> Layout:
    return Layout(begin=f"{begin}[", between=", ", end=f"]{end}", **_NAMED)  # type: ignore[arg-type]


APERTUS = listed(
    "apertus",
    Layout(
        begin="<|tools_prefix|>[",
        open='{"',
        middle='": ',
        close="}",
        between=", ",
        end="]<|tools_suffix|>",
        json_name=True,
    ),
    _single_key,
)
NEMOTRON = listed("nemotron", _list_between("<TOOLCALL>", "</TOOLCALL>"))
GRANITE_3 = listed("granite-3", _list_between("<|tool_call|>", ""))
PHI_4 = listed("phi-4", _list_between("<|tool_call|>", "<|/tool_call|>"))
FIREFUNCTION = listed("firefunction", _list_between(" functools", ""))
COMMAND_R = listed(
    "command-r",
    Layout(**_ACTION),  # type: ignore[arg-type]
    dropped=(*("<|START_RESPONSE|>", "<|END_RESPONSE|>", "<|START_TEXT|>", "<|END_TEXT|>"),),
    frame=("<|START_RESPONSE|>", "<|END_RESPONSE|>"),
)
GIGACHAT = listed("gigachat", Layout(begin="<|function_call|>", **_NAMED))  # type: ignore[arg-type]

FORMATS = (APERTUS, NEMOTRON, PHI_4, GRANITE_3, FIREFUNCTION, COMMAND_R, GIGACHAT)

"""Hermes, Qwen 2.5 and Qwen 3: ``<tool_call>{"name": ..., "arguments": {...}}</tool_call>``.

Format: https://github.com/NousResearch/Hermes-Function-Calling and the chat templates of Qwen 2.5.
"""

from __future__ import annotations

from mofa_gguf.chat.cursor import Reading
from mofa_gguf.chat.formats.base import CallReader, Schemas, ToolCallFormat, calls_of
from mofa_gguf.chat.formats.grammar import Lark
from mofa_gguf.chat.formats.layout import Layout

_OPEN, _CLOSE = "<tool_call>", "</tool_call>"
# A closing brace too many is a frequent slip, and harmless.
_ENDS = (_CLOSE, f"}}{_CLOSE}", f"}}\n{_CLOSE}")


def _read(reader: CallReader, _opener: str) -> Reading[bool]:
    cursor = reader.cursor
    while True:
        yield from cursor.whitespace()
        calls = calls_of((yield from cursor.json_text(end=_CLOSE)))
        if calls is None:
            # After a call, what is no further call is the answer going on without closing tag.
            return False
        reader.found(*calls)
        yield from cursor.whitespace()
        if (yield from cursor.match(*_ENDS)) or not (yield from cursor.more()):
            return True
        if cursor.ahead[0] not in "{[":
            return True


def _describe(lark: Lark, schemas: Schemas, parallel: bool) -> str:
    layout = Layout(
        open=f'{_OPEN}\n{{"name": "',
        middle='", "arguments": ',
        close=f"}}\n{_CLOSE}",
        between="\n",
        json_name=True,
    )
    return layout.describe_json(lark, schemas, parallel)


FORMAT = ToolCallFormat(
    name="hermes",
    openers=(_OPEN,),
    read=_read,
    markers=(_OPEN, _CLOSE),
    describe=_describe,
)

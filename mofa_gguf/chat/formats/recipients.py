"""Turns made of messages with a recipient each: gpt-oss (harmony) and Muse.

``<|start|>assistant to=functions.name<|channel|>commentary json<|message|>{...}<|call|>`` and
``<|start|>assistant to=name<|message|><atem:function_calls>...``; a prompt ends behind the word
"assistant". Formats: https://cookbook.openai.com/articles/openai-harmony and the chat templates of
both. Messages to oneself are reasoning, all others are the answer.
"""

from __future__ import annotations

import re

from mofa_gguf.chat.cursor import Reading
from mofa_gguf.chat.formats.base import (
    Call,
    CallReader,
    Opening,
    Schemas,
    ToolCallFormat,
    arguments_of,
    load_json,
)
from mofa_gguf.chat.formats.field_layout import Fields, named_fields
from mofa_gguf.chat.formats.grammar import Lark
from mofa_gguf.chat.formats.layout import Layout, any_object, closed

_START, _CHANNEL, _MESSAGE = "<|start|>assistant", "<|channel|>", "<|message|>"
_RECIPIENT = re.compile(r"\bto=(\S+)")
_MAX_HEADER_CHARS = 200


def _read_bare(reader: CallReader) -> Reading[bool]:
    yield from reader.cursor.whitespace()
    opener = yield from reader.cursor.match(_START, _CHANNEL, "to=")
    return False if opener is None else (yield from _read_message(reader, opener))


def _read_message(reader: CallReader, opener: str) -> Reading[bool]:
    """The head of a message, and all of it if it is a call or reasoning."""
    cursor = reader.cursor
    head = yield from cursor.until(_MESSAGE)
    if head is None or len(head) > _MAX_HEADER_CHARS:
        return False
    head = ("" if opener == _START else opener) + head
    recipient = _RECIPIENT.search(head.replace("<|", " <|"))
    to = recipient[1] if recipient else ""
    if to == "self" or (not to and f"{_CHANNEL}analysis" in head):
        reader.found()
        thought = yield from cursor.until("<|eom|>" if to else "<|end|>")
        reader.thought(cursor.read if thought is None else thought)
        reader.found()
        return True
    if not to.startswith("functions.") or _no_tools(reader):
        # A message to the user, or one whose calls stand in tags of their own.
        reader.found()
        return True
    yield from cursor.whitespace()
    value = load_json((yield from cursor.json_text(end="<|call|>")))
    if not isinstance(value, dict):
        return False
    arguments = arguments_of(value)
    if arguments is None:
        return False
    reader.found(Call(to.removeprefix("functions."), arguments))
    yield from cursor.whitespace()
    yield from cursor.match("<|call|>")
    return True


def _no_tools(reader: CallReader) -> bool:
    return reader.tool_names is not None and not reader.tool_names


_HARMONY_LAYOUT = Layout(
    open="<|channel|>commentary to=functions.", middle=" <|constrain|>json<|message|>"
)


# Behind a recipient that stands in front of the channel.
_HARMONY_TURNED = Layout(
    open="<|start|>assistant to=functions.",
    middle="<|channel|>commentary <|constrain|>json<|message|>",
)
_HARMONY_SHORT = Layout(
    open="<|start|>assistant to=functions.", middle="<|channel|>commentary json<|message|>"
)


def _describe_harmony(lark: Lark, schemas: Schemas, _parallel: bool) -> str:
    # The end of a call ends the turn: there is never a second one.
    # A model may have begun in another way than its template writes.
    others = (_HARMONY_TURNED, _HARMONY_SHORT) if lark.written is not None else ()
    return lark.any_of(
        layout.describe(
            lark,
            any_object(schemas),
            False,
            lambda lark, _name, schema: lark.json(closed(schema)),
        )
        for layout in (_HARMONY_LAYOUT, *others)
    )


HARMONY = ToolCallFormat(
    name="harmony",
    openers=(_START, _CHANNEL),
    read=_read_message,
    read_bare=_read_bare,
    markers=("<|start|>", _CHANNEL, _MESSAGE, "<|constrain|>", "<|call|>", "<|end|>", "<|return|>"),
    dropped=("<|end|>", "<|return|>"),
    frames_text=True,
    openings=(Opening("to=functions."),),
    frame=("<|channel|>final<|message|>", ""),
    resumes=_START,
    describe=_describe_harmony,
)

_ATEM_FIELDS = Fields(open='<atem:parameter name="', middle='">', close="</atem:parameter>\n")
_ATEM = named_fields(
    "atem",
    Layout(
        begin="<atem:function_calls>\n",
        open='<atem:invoke name="',
        middle='">\n',
        close="</atem:invoke>\n",
        end="</atem:function_calls>",
    ),
    _ATEM_FIELDS,
)
# Each call is a message of its own.
_ATEM_MESSAGES = named_fields(
    "muse",
    Layout(
        open=' to={name}<|message|><atem:function_calls>\n<atem:invoke name="',
        middle='">\n',
        close="</atem:invoke>\n</atem:function_calls>",
        between="<|eom|><|start|>assistant",
    ),
    _ATEM_FIELDS,
)


def _read_muse(reader: CallReader, opener: str) -> Reading[bool]:
    if opener != _START and _no_tools(reader):
        return False
    read = _read_message if opener == _START else _ATEM.read
    return (yield from read(reader, opener))


MUSE = ToolCallFormat(
    name="muse",
    openers=(*_ATEM.openers, _START),
    read=_read_muse,
    read_bare=_read_bare,
    markers=(*_ATEM.markers, "<|start|>", _MESSAGE, "<|eom|>", "<|eot|>"),
    leads=("to=user<|message|>",),
    frames_text=True,
    dropped=("<|eom|>",),
    openings=_ATEM.openings,
    frame=(" to=user<|message|>", ""),
    resumes=_START,
    describe=_ATEM_MESSAGES.describe,
)

FORMATS = (HARMONY, MUSE)

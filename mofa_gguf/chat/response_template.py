"""What a model's response template says of its answers, where the chat template does not tell it.

transformers 5 keeps a ``response_template`` in tokenizer_config.json: which texts begin and end an
answer's fields (``utils/chat_parsing/response_templates.py``). The converter keeps it in the file.
What the probe finds out by rendering comes first, as it also says how calls are written again; from
the response template come marks of reasoning that no template of ours knows, calls that a chat
template describes but never renders, and texts that end a turn.

Taken are anchors that are texts (or patterns that amount to a text) and calls in JSON. Whatever
else a response template can say is left alone: it may only add to what would be read without it.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mofa_gguf.chat.cursor import WHITESPACE
from mofa_gguf.chat.formats import ToolCallFormat
from mofa_gguf.chat.formats.layout import Layout, named_json
from mofa_gguf.chat.formats.listed import keyed_json
from mofa_gguf.chat.parser import is_turn_end
from mofa_gguf.chat.reasoning import ReasoningTags

logger = logging.getLogger(__name__)

_VERSION = 1
_NAME = "response_template"
_REASONING = ("reasoning_content", "thinking", "reasoning")
_LEAST_MARK = 3
_NAME_GROUP = re.compile(r"\(\?P<name>(?:[^()\\]|\\.)*\)")
_BLANKS = re.compile(r"^(?:\\s[*+]|\\n)+|(?:\\s[*+]|\\n)+$")
_PLAIN = re.compile(r"(?:[^\\.^$*+?{}\[\]()|]|\\[^A-Za-z0-9])*")
_PART = re.compile(r"\{content\.(\w+)\}")


@dataclass(frozen=True)
class ResponseHints:
    """What a response template adds to a probe's findings."""

    reasoning: tuple[ReasoningTags, ...] = ()
    call_format: ToolCallFormat | None = None
    turn_ends: tuple[str, ...] = ()


NO_HINTS = ResponseHints()


def read_response_template(text: str | None) -> ResponseHints:
    """The hints of a response template in JSON; none for what is not understood."""
    if text is None:
        return NO_HINTS
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        logger.warning("the model's response template is no JSON and is not used")
        return NO_HINTS
    fields = value.get("fields") if isinstance(value, dict) else None
    if not isinstance(fields, dict) or value.get("version", _VERSION) != _VERSION:
        return NO_HINTS
    known = {name: field for name, field in fields.items() if isinstance(field, dict)}
    reasoning = [pair for name in _REASONING for pair in _reasoning(known.get(name, {}))]
    ends = _anchors(known.get("content", {}), "close")
    return ResponseHints(
        reasoning=tuple(dict.fromkeys(reasoning)),
        call_format=_call_format(known.get("tool_calls", {})),
        turn_ends=tuple(end for end in ends if is_turn_end(end)),
    )


def _reasoning(field: Mapping[str, Any]) -> Iterator[ReasoningTags]:
    closes = _anchors(field, "close")
    for opening in _anchors(field, "open"):
        if closes and len(opening) >= _LEAST_MARK:
            yield ReasoningTags(opening, closes[0])


def _call_format(field: Mapping[str, Any]) -> ToolCallFormat | None:
    """The format of calls whose content is JSON between marks."""
    closes = _anchors(field, "close")
    if field.get("content") != "json" or field.get("content_args") or not closes:
        return None
    function = _function(field.get("transform"))
    if isinstance(function, str):
        keys: tuple[str, str] | None = ("name", "arguments") if function == "{content}" else None
    else:
        keys = _keys(function)
    openings = _anchors(field, "open")
    if keys is not None and openings and len(openings[0]) >= _LEAST_MARK:
        layout = Layout(
            open=f'{openings[0]}{{"{keys[0]}": "',
            middle=f'", "{keys[1]}": ',
            close=f"}}{closes[0]}",
            json_name=True,
        )
        return keyed_json(_NAME, layout, name_key=keys[0], arguments_key=keys[1])
    if function != {"name": "{name}", "arguments": "{content}"}:
        return None
    around = _around_name(field.get("open_pattern"))
    if around is None or len(around[0]) < _LEAST_MARK:
        return None
    return named_json(_NAME, Layout(open=around[0], middle=around[1], close=closes[0]))


def _function(transform: object) -> Any:
    """What becomes a call's ``function``; "{content}" where the content is that already."""
    if transform is None or transform == "{content}":
        return None  # the content is a whole call, in a form that is not said
    return transform.get("function") if isinstance(transform, dict) else None


def _keys(function: object) -> tuple[str, str] | None:
    """The keys of name and arguments inside the content."""
    if not isinstance(function, dict) or set(function) != {"name", "arguments"}:
        return None
    found = [_PART.fullmatch(str(function[key])) for key in ("name", "arguments")]
    name, arguments = found
    return (name[1], arguments[1]) if name and arguments else None


def _anchors(field: Mapping[str, Any], name: str) -> list[str]:
    """The texts of an anchor, without white space around them."""
    value = field.get(name)
    texts = value if isinstance(value, list) else [value]
    found = [text for text in texts if isinstance(text, str)]
    pattern = field.get(f"{name}_pattern")
    if isinstance(pattern, str):
        found += _texts_of(pattern)
    stripped = (text.strip(WHITESPACE) for text in found)
    return [text for text in dict.fromkeys(stripped) if text]


def _texts_of(pattern: str) -> list[str]:
    """The texts that a pattern stands for, if they can be told: one, or some with | between."""
    inner = _BLANKS.sub("", pattern)
    group = re.fullmatch(r"\(\?:(.*)\)", inner, re.DOTALL)
    texts = [_literal(part) for part in re.split(r"(?<!\\)\|", group[1] if group else inner)]
    return [text for text in texts if text is not None] if None not in texts else []


def _around_name(pattern: object) -> tuple[str, str] | None:
    """The texts before and behind the name in a pattern with a group for it."""
    if not isinstance(pattern, str):
        return None
    parts = _NAME_GROUP.split(_BLANKS.sub("", pattern))
    if len(parts) != 2:
        return None
    before, behind = (_literal(part) for part in parts)
    return None if before is None or behind is None else (before, behind)


def _literal(pattern: str) -> str | None:
    """The one text that a pattern matches; None where it may match others."""
    if not _PLAIN.fullmatch(pattern):
        return None
    return re.sub(r"\\(.)", r"\1", pattern, flags=re.DOTALL)

"""Conversations changed as little as needed for templates that refuse them.

Only when a template itself refuses (it calls ``raise_exception``) is a conversation adapted: its
system message goes into the user's, neighbours of one role become one message, tool-call ids are
made nine letters long, parallel calls become calls one after the other. The model sees everything
that was said either way. When no adaptation helps, the caller gets the template's own words.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from typing import Any

from mofa_gguf.chat.errors import TemplateRefused
from mofa_gguf.chat.messages import Message, text_of

Adaptation = Callable[[list[Message]], list[Message]]


def render_adapted(messages: list[Message], render: Callable[[list[Message]], str]) -> str:
    """``render(messages)``, adapting the messages as long as the template refuses them.

    An adaptation that changes the template's reason is kept and the next one tried on top of it:
    a template that wants two things complains about one of them first.
    Raises TemplateRefused with the first reason when nothing helps.
    """
    try:
        return render(messages)
    except TemplateRefused as refused:
        first = refused
    reason = first.reason
    for adapt in _ADAPTATIONS:
        candidate = adapt(messages)
        if candidate == messages:
            continue
        try:
            return render(candidate)
        except TemplateRefused as refused:
            if refused.reason != reason:
                messages, reason = candidate, refused.reason
    raise first


def merge_system(messages: list[Message]) -> list[Message]:
    """Every system message's text goes in front of the next user message."""
    merged: list[Message] = []
    waiting: list[Any] = []
    for message in messages:
        if message.get("role") == "system":
            waiting.append(message.get("content"))
        elif message.get("role") == "user" and waiting:
            merged.append({**message, "content": _join(*waiting, message.get("content"))})
            waiting = []
        else:
            merged.append(message)
    if waiting:
        merged.append({"role": "user", "content": _join(*waiting)})
    return merged


def merge_neighbours(messages: list[Message]) -> list[Message]:
    """Neighbouring messages of one role, user or assistant, become one."""
    merged: list[Message] = []
    for message in messages:
        last = merged[-1] if merged else None
        if (
            last is not None
            and message.get("role") == last.get("role")
            and message.get("role") in ("user", "assistant")
            and "tool_calls" not in last
        ):
            content = _join(last.get("content"), message.get("content"))
            merged[-1] = {**last, **message, "content": content}
        else:
            merged.append(message)
    return merged


def shorten_ids(messages: list[Message]) -> list[Message]:
    """Tool-call ids become nine letters and digits, the same one for a call and its result."""
    return [_shorten_message_ids(message) for message in messages]


def one_call_at_a_time(messages: list[Message]) -> list[Message]:
    """A message with several calls becomes several, each followed by its own call's result."""
    split: list[Message] = []
    n = 0
    while n < len(messages):
        message = messages[n]
        n += 1
        calls = message.get("tool_calls")
        if not isinstance(calls, list) or len(calls) < 2:
            split.append(message)
            continue
        results = []
        while n < len(messages) and messages[n].get("role") == "tool":
            results.append(messages[n])
            n += 1
        split += _one_by_one(message, calls, results)
    return split


# Each of them helps against a refusal known from published templates: Gemma's and Mistral's about
# the system role, theirs about roles that must alternate, Mistral's about ids, Llama 3's about
# parallel calls.
_ADAPTATIONS: tuple[Adaptation, ...] = (
    merge_system,
    merge_neighbours,
    shorten_ids,
    one_call_at_a_time,
)


def _one_by_one(message: Message, calls: list[Any], results: list[Message]) -> list[Message]:
    parts: list[Message] = []
    for number, call in enumerate(calls):
        part = {**message, "tool_calls": [call]}
        if number:
            part.pop("content", None)
            part.pop("reasoning_content", None)
            part.pop("thinking", None)
        parts.append(part)
        call_id = call.get("id") if isinstance(call, dict) else None
        answer = next((r for r in results if r.get("tool_call_id") == call_id), None)
        if answer is None and results:
            answer = results[0]
        if answer is not None:
            results.remove(answer)
            parts.append(answer)
    return parts + results


def _join(*contents: Any) -> Any:
    """Several contents as one: texts with an empty line between them, parts in one list."""
    present = [content for content in contents if content]
    if any(isinstance(content, list) for content in present):
        parts: list[Any] = []
        for content in present:
            parts += content if isinstance(content, list) else [{"type": "text", "text": content}]
        return parts
    return "\n\n".join(text_of(content) for content in present)


def _shorten_message_ids(message: Message) -> Message:
    changed = dict(message)
    if isinstance(message.get("tool_call_id"), str):
        changed["tool_call_id"] = _short_id(message["tool_call_id"])
    if isinstance(message.get("tool_calls"), list):
        changed["tool_calls"] = [
            {**call, "id": _short_id(call.get("id") or str(number))}
            if isinstance(call, dict)
            else call
            for number, call in enumerate(message["tool_calls"])
        ]
    return changed


def _short_id(call_id: str) -> str:
    if len(call_id) == 9 and call_id.isascii() and call_id.isalnum():
        return call_id
    return blake2b(call_id.encode("utf-8", "surrogatepass"), digest_size=5).hexdigest()[:9]

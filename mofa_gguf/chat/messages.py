"""Messages and tools as a template sees them: plain dictionaries, lists, text and numbers.

A template gets a copy made of JSON's types and nothing else, so there is no object whose methods
it could misuse. Two habits of Hugging Face's ``apply_chat_template`` are kept because templates
count on them: keys whose value is None are left out of a message, and reasoning is found under the
names ``reasoning_content`` and ``thinking`` whichever of them (or ``reasoning``) was given.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from mofa_gguf.chat.errors import TemplateFailed
from mofa_gguf.contract import ChatMessage, Tool

Message = dict[str, Any]
"""One message as a template sees it."""

_REASONING_KEYS = ("reasoning_content", "thinking", "reasoning")
# The type names that chat templates look for, by the key that MoFA's untagged parts carry.
_PART_TYPES = {
    "text": "text",
    "image_url": "image",
    "audio": "audio",
    "input_audio": "audio",
    "video": "video",
}


def template_messages(messages: Iterable[ChatMessage | Mapping[str, Any]]) -> list[Message]:
    """Copies of the messages, in a template's terms.

    Raises TemplateFailed for an empty conversation, something that is no message, or values
    nested deeper than Python can copy.
    """
    converted = []
    for message in messages:
        data = message.to_dict() if isinstance(message, ChatMessage) else message
        if not isinstance(data, Mapping):
            raise TemplateFailed(f"a message is a {type(message).__name__}, not a ChatMessage")
        converted.append(_with_reasoning_names(_template_message(data)))
    if not converted:
        raise TemplateFailed("the conversation has no messages")
    return converted


def template_tools(
    tools: Iterable[Tool | Mapping[str, Any]] | None,
) -> list[dict[str, Any]] | None:
    """Copies of the tools; None when there are none.

    ``strict`` of MoFA's type is left out: it asks something of us, not of the model. Raises
    TemplateFailed for one nested too deeply to be copied.
    """
    converted = []
    for tool in tools or ():
        if isinstance(tool, Tool):
            try:
                data = plain(tool.to_dict())
            except ValueError as error:  # pydantic's own limit
                raise TemplateFailed("a tool is nested too deeply") from error
            data["function"].pop("strict", None)
        else:
            data = plain(tool)
        converted.append(data)
    return converted or None


def plain(value: Any) -> Any:
    """A copy of ``value`` in JSON's types; what has none becomes "<its type's name>".

    Raises TemplateFailed when it is nested too deeply to be copied.
    """
    try:
        return _plain(value)
    except RecursionError as error:
        raise TemplateFailed("a message, tool or argument is nested too deeply") from error


def _plain(value: Any) -> Any:
    if value is None or type(value) in (str, int, float, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, (int, float)):
        return int(value) if isinstance(value, int) else float(value)
    if isinstance(value, Mapping):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if callable(getattr(value, "model_dump", None)):  # a pydantic model
        return _plain(value.model_dump(mode="json"))
    return f"<{type(value).__name__}>"


def _template_message(data: Mapping[str, Any]) -> Message:
    message = {key: plain(value) for key, value in data.items() if value is not None}
    if isinstance(message.get("content"), list):
        message["content"] = [_typed_part(part) for part in message["content"]]
    return message


def _typed_part(part: Any) -> Any:
    if not isinstance(part, dict) or "type" in part:
        return part
    kind = next((name for key, name in _PART_TYPES.items() if key in part), None)
    return part if kind is None else {"type": kind, **part}


def _with_reasoning_names(message: Message) -> Message:
    given = (message[key] for key in _REASONING_KEYS if message.get(key) is not None)
    reasoning = next(given, None)
    if reasoning is None:
        return message
    return {"thinking": reasoning, **message, "reasoning_content": reasoning}


def map_arguments(messages: list[Message], convert: Callable[[Any], Any]) -> list[Message]:
    """The messages with every tool call's arguments passed through ``convert``."""
    return [
        {**message, "tool_calls": [_map_call(call, convert) for call in message["tool_calls"]]}
        if isinstance(message.get("tool_calls"), list)
        else message
        for message in messages
    ]


def _map_call(call: Any, convert: Callable[[Any], Any]) -> Any:
    if not isinstance(call, dict):
        return call
    if isinstance(call.get("function"), dict):
        return {**call, "function": _map_call(call["function"], convert)}
    if "arguments" in call:
        return {**call, "arguments": convert(call["arguments"])}
    return call


def arguments_as_object(arguments: Any) -> Any:
    """JSON text of an object becomes the object; anything else stays as it is."""
    if not isinstance(arguments, str):
        return arguments
    if not arguments.strip():
        return {}
    try:
        value = json.loads(arguments)
    except ValueError:
        return arguments
    except RecursionError as error:
        raise TemplateFailed("a tool call's arguments are nested too deeply") from error
    return value if isinstance(value, dict) else arguments


def arguments_as_text(arguments: Any) -> Any:
    """An object becomes JSON text; text stays as it is."""
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)


def other_than_text(messages: list[Message]) -> str | None:
    """The type of the first content part that is not text, if any."""
    for message in messages:
        content = message.get("content")
        for part in content if isinstance(content, list) else ():
            if not isinstance(part, dict) or part.get("type", "text") != "text":
                return str(part.get("type")) if isinstance(part, dict) else type(part).__name__
    return None


def join_text_parts(messages: list[Message], *, role: str | None = None) -> list[Message]:
    """The messages with lists of text parts joined to one text, a line break between parts.

    With ``role``, only those of this role.
    """
    return [
        {**message, "content": text_of(message["content"])}
        if isinstance(message.get("content"), list) and role in (None, message.get("role"))
        else message
        for message in messages
    ]


def text_of(content: Any) -> str:
    """All text of a message's content."""
    if isinstance(content, list):
        return "\n".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return "" if content is None else str(content)

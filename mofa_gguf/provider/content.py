"""Messages in the JSON shape of OpenTelemetry's conventions, for those who want them recorded.

https://github.com/open-telemetry/semantic-conventions-genai: gen-ai-input-messages.json and
gen-ai-output-messages.json. Images, audio and video are named, not kept.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from mofa_gguf.contract import (
    ChatCompletionRequest,
    ChatCompletionResponse,
    ChatMessage,
    Role,
    TextPart,
)


def input_attributes(request: ChatCompletionRequest) -> dict[str, str]:
    """A request's messages, system instructions and tools."""
    system = [m for m in request.messages if m.role is Role.SYSTEM]
    others = [m for m in request.messages if m.role is not Role.SYSTEM]
    attributes = {"gen_ai.input.messages": _json([_message(m) for m in others])}
    if system:
        parts = [part for message in system for part in _parts(message)]
        attributes["gen_ai.system_instructions"] = _json(parts)
    if request.tools:
        attributes["gen_ai.tool.definitions"] = _json([tool.to_dict() for tool in request.tools])
    return attributes


def output_attributes(response: ChatCompletionResponse) -> dict[str, str]:
    """The answers, each with why it ended."""
    messages = [
        {
            **_message(choice.message),
            "finish_reason": choice.finish_reason.value if choice.finish_reason else None,
        }
        for choice in response.choices
    ]
    return {"gen_ai.output.messages": _json(messages)}


def _message(message: ChatMessage) -> dict[str, Any]:
    return {"role": message.role.value, "parts": list(_parts(message))}


def _parts(message: ChatMessage) -> Iterator[dict[str, Any]]:
    if message.role is Role.TOOL:
        yield {
            "type": "tool_call_response",
            "id": message.tool_call_id,
            "response": message.text_content(),
        }
        return
    if message.reasoning_content:
        yield {"type": "reasoning", "content": message.reasoning_content}
    if isinstance(message.content, str):
        yield {"type": "text", "content": message.content}
    for part in message.content if isinstance(message.content, list) else ():
        if isinstance(part, TextPart):
            yield {"type": "text", "content": part.text}
        else:
            yield {"type": type(part).__name__.removesuffix("Part").lower()}
    for call in message.tool_calls or ():
        yield {
            "type": "tool_call",
            "id": call.id,
            "name": call.function.name,
            "arguments": call.function.arguments,
        }


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)

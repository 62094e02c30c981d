"""Servers' answers as the contract's responses.

Servers differ in small things: a finish reason of their own, reasoning under one of two names,
calls without an id, arguments as an object, counts or times left out. What is left out is made up
for here; what is wrong is a SerializationError.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping
from typing import Any

from mofa_gguf.contract import (
    ChatCompletionResponse,
    ContentFiltered,
    EmbeddingResponse,
    FinishReason,
    SerializationError,
    Usage,
)

JsonObject = dict[str, Any]

# What servers call the ends that the contract has four names for.
_FINISH_REASONS = {
    "stop": FinishReason.STOP,
    "length": FinishReason.LENGTH,
    "max_tokens": FinishReason.LENGTH,
    "tool_calls": FinishReason.TOOL_CALLS,
    "function_call": FinishReason.TOOL_CALLS,
    "content_filter": FinishReason.CONTENT_FILTER,
}


def read_object(text: str) -> JsonObject:
    """The JSON object that a server answered with.

    Raises:
        SerializationError: it is none (``content`` is the text).
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SerializationError(
            f"the server's answer is not JSON ({error}); is base_url an API of OpenAI's kind?",
            content=text,
        ) from error
    if not isinstance(data, dict):
        raise SerializationError("the server's answer is no JSON object", content=text)
    return data


def read_response(data: JsonObject, model: str) -> ChatCompletionResponse:
    """A whole answer.

    Raises:
        SerializationError: it has not the shape of one.
        ContentFiltered: a filter withheld all of it.
    """
    choices = data.get("choices")
    if not isinstance(choices, list) or not choices:
        raise SerializationError("the server's answer has no choices", content=json.dumps(data))
    response = ChatCompletionResponse.from_dict(
        {
            **envelope(data, model),
            "choices": [_choice(choice, index) for index, choice in enumerate(choices)],
            "usage": usage_of(data),
            "system_fingerprint": data.get("system_fingerprint"),
        }
    )
    first = response.choices[0]
    if first.finish_reason is FinishReason.CONTENT_FILTER and not first.message.text_content():
        raise withheld()
    return response


def read_embeddings(data: JsonObject, model: str, n_texts: int) -> EmbeddingResponse:
    """The vectors of ``n_texts`` texts, in their order.

    Raises:
        SerializationError: it has not the shape of vectors, or there are more or fewer.
    """
    vectors = data.get("data")
    if not isinstance(vectors, list) or len(vectors) != n_texts:
        n_got = len(vectors) if isinstance(vectors, list) else 0
        raise SerializationError(f"the server answered {n_texts} texts with {n_got} vectors")
    usage = data.get("usage") if isinstance(data.get("usage"), Mapping) else {}
    n_tokens = _count(usage, "prompt_tokens")
    response = EmbeddingResponse.from_dict(
        {
            "model": data.get("model") or model,
            "data": [
                {**vector, "index": vector.get("index", n)} if isinstance(vector, dict) else vector
                for n, vector in enumerate(vectors)
            ],
            "usage": {
                "prompt_tokens": n_tokens,
                "total_tokens": _count(usage, "total_tokens") or n_tokens,
            },
        }
    )
    response.data.sort(key=lambda vector: vector.index)
    return response


def envelope(data: Mapping[str, Any], model: str) -> JsonObject:
    """Id, time and model of an answer or chunk; made up where the server gives none."""
    created = data.get("created")
    usable = isinstance(created, int | float) and not isinstance(created, bool) and created >= 0
    return {
        "id": str(data.get("id") or f"chatcmpl-{uuid.uuid4().hex}"),
        "created": int(created) if usable and created is not None else int(time.time()),
        "model": str(data.get("model") or model),
    }


def usage_of(data: Mapping[str, Any]) -> JsonObject | None:
    """The token counts, if the server gives them."""
    usage = data.get("usage")
    if not isinstance(usage, Mapping):
        return None
    counts = _count(usage, "prompt_tokens"), _count(usage, "completion_tokens")
    return Usage.new(*counts).to_dict()


def finish_reason(name: object, *, calls: bool) -> FinishReason | None:
    """The contract's word for a server's; None while nothing ended.

    Some servers say "stop" after tool calls; MoFA's readers look for "tool_calls".
    """
    if not name:
        return None
    reason = _FINISH_REASONS.get(str(name), FinishReason.STOP)
    return FinishReason.TOOL_CALLS if calls and reason is FinishReason.STOP else reason


def reasoning_of(message: Mapping[str, Any]) -> str | None:
    """What the model thought: ``reasoning_content`` (DeepSeek, vLLM, llama.cpp) or ``reasoning``
    (Ollama, vLLM)."""
    value = message.get("reasoning_content") or message.get("reasoning")
    return value if isinstance(value, str) and value else None


def withheld() -> ContentFiltered:
    """The error of an answer that a filter withheld wholly."""
    return ContentFiltered("the server's content filter withheld the answer")


def _choice(choice: object, index: int) -> JsonObject:
    if not isinstance(choice, dict) or not isinstance(choice.get("message"), dict):
        raise SerializationError("a choice of the server's answer has no message")
    message = choice["message"]
    calls = [_call(call) for call in message.get("tool_calls") or () if isinstance(call, dict)]
    content = message.get("content")
    return {
        "index": choice.get("index") or index,
        "message": {
            "role": "assistant",
            # A refusal is what the model says instead of an answer.
            "content": content if content or calls else message.get("refusal") or "",
            "tool_calls": calls or None,
            "reasoning_content": reasoning_of(message),
        },
        "finish_reason": finish_reason(choice.get("finish_reason"), calls=bool(calls)),
        "logprobs": choice.get("logprobs"),
    }


def _call(call: JsonObject) -> JsonObject:
    return {**call, "id": call.get("id") or f"call_{uuid.uuid4().hex[:12]}", "type": "function"}


def _count(usage: object, key: str) -> int:
    value = usage.get(key) if isinstance(usage, Mapping) else None
    return value if isinstance(value, int) and value >= 0 else 0

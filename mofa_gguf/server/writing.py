"""From the contract's answers to the JSON of OpenAI's API.

MoFA leaves out what is None; OpenAI's readers expect some of it as null.
"""

from __future__ import annotations

import base64
import json
import sys
from array import array
from collections.abc import AsyncGenerator, AsyncIterable
from typing import Any

from mofa_gguf.contract import (
    ChatCompletionChunk,
    ChatCompletionResponse,
    EmbeddingResponse,
    Timings,
    Usage,
)

JsonObject = dict[str, Any]

DONE = b"data: [DONE]\n\n"


def sse(value: JsonObject) -> bytes:
    """One event of a stream."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return b"data: " + text.encode("utf-8", errors="replace") + b"\n\n"


def chat_response(response: ChatCompletionResponse) -> JsonObject:
    """A whole answer."""
    written = response.to_dict()
    for choice in written["choices"]:
        for key in ("content", "refusal"):
            choice["message"].setdefault(key, None)
        choice.setdefault("logprobs", None)
        _complete(choice["logprobs"])
        choice.setdefault("finish_reason", None)
    if response.usage is not None:
        written["usage"] = usage_of(response.usage, response.timings)
    return written


async def chat_events(
    chunks: AsyncIterable[ChatCompletionChunk], *, include_usage: bool
) -> AsyncGenerator[bytes, None]:
    """A streamed answer; the usage, where it is asked for, on a chunk of its own at the end."""
    last: JsonObject | None = None
    async for chunk in chunks:
        written = chunk.to_dict()
        for choice in written["choices"]:
            choice.setdefault("finish_reason", None)
            _complete(choice.get("logprobs"))
        written.pop("usage", None)
        if include_usage:
            written["usage"] = None
            if chunk.usage is not None:
                head = {key: written[key] for key in ("id", "object", "created", "model")}
                last = {**head, "choices": [], "usage": usage_of(chunk.usage, chunk.timings)}
        yield sse(written)
    if last is not None:
        yield sse(last)
    yield DONE


def _complete(logprobs: Any) -> None:
    """Give a choice's logprobs the list for refusals that OpenAI's readers expect."""
    if isinstance(logprobs, dict):
        logprobs.setdefault("refusal", None)


def usage_of(usage: Usage, timings: Timings | None) -> JsonObject:
    """The counts, with the cached tokens where OpenAI has them."""
    written = usage.to_dict()
    if timings is not None:
        written["prompt_tokens_details"] = {"cached_tokens": timings.cached_tokens}
    return written


def embedding_response(response: EmbeddingResponse, *, as_base64: bool) -> JsonObject:
    """Vectors as lists of numbers, or as base64 of little-endian float32."""
    written = response.to_dict()
    if as_base64:
        for data in written["data"]:
            data["embedding"] = _base64(data["embedding"])
    return written


def _base64(vector: list[float]) -> str:
    numbers = array("f", vector)
    if sys.byteorder == "big":
        numbers.byteswap()
    return base64.b64encode(numbers.tobytes()).decode("ascii")

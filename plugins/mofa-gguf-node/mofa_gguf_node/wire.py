"""What an agent node and a provider node say to each other.

Every message is one JSON text, and its metadata has the ``request_id`` that both sides go by, as
in dora's request/reply pattern. The values inside are the contract's own JSON, so that a node
written in another language can take part.

    agent -> provider
        {"op": "chat", "request": ChatCompletionRequest}
        {"op": "embedding", "request": EmbeddingRequest}
        {"op": "info", "model": "..."}
        {"op": "count", "messages": [ChatMessage], "tools": [Tool]}
        {"op": "cancel"}                       of the request with this id

    provider -> agent
        {"op": "hello", "instance": "..."}     the provider node is there; no request_id
        {"op": "chunk", "chunk": ChatCompletionChunk}
        {"op": "end"}                          after the last chunk
        {"op": "result", "result": ...}        of embedding, info and count
        {"op": "error", "error": ..., ...}     see ``failures``

A request is answered by chunks and an end, by a result, or by an error, whatever happens to it.
``seq`` and ``fin`` in the metadata of chunks are dora's streaming pattern.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from mofa_gguf.contract import SerializationError

REQUEST_ID = "request_id"

Json = dict[str, Any]


def write(op: str, **content: Any) -> str:
    """A message."""
    return json.dumps({"op": op, **content}, ensure_ascii=False)


def read(values: Sequence[object]) -> Json:
    """The message in an array.

    Raises:
        SerializationError: it is none.
    """
    text = values[0] if values else None
    if not isinstance(text, str):
        raise SerializationError("the message is no text; it must be one JSON object with an op")
    try:
        message = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SerializationError(f"the message is not JSON ({error})", content=text) from error
    if not isinstance(message, dict) or not isinstance(message.get("op"), str):
        raise SerializationError("the message is no JSON object with an op", content=text)
    return message


def request_id_of(metadata: Mapping[str, Any]) -> str | None:
    """The id in a message's metadata, None where there is none."""
    value = metadata.get(REQUEST_ID)
    return value if isinstance(value, str) and value else None

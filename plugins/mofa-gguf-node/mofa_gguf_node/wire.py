"""What an agent node and a provider node say to each other.

Every message is one JSON text, and its metadata has the ``request_id`` that both sides go by, as
in dora's request/reply pattern. The values inside are the contract's own JSON, so that a node
written in another language can take part.

    agent -> provider
        {"op": "chat", "request": ChatCompletionRequest}
        {"op": "embedding", "request": EmbeddingRequest}
        {"op": "info", "model": "..."}
        {"op": "count", "messages": [ChatMessage], "tools": [Tool]}
        {"op": "again", "from": 3}             the replies from number 3 on were not heard
        {"op": "cancel"}                       of the request with this id

    provider -> agent
        {"op": "hello"}                        the provider node is there; no request_id
        {"op": "chunk", "chunk": ChatCompletionChunk}
        {"op": "end"}                          after the last chunk
        {"op": "result", "result": ...}        of embedding, info and count
        {"op": "error", "error": ..., ...}     see ``failures``
        {"op": "missed", "replies": [...]}     those asked for again; ``seq`` is the first one's
        {"op": "busy"}                         there is nothing new to say yet
        {"op": "unknown"}                      no such request is known here

A request is answered by chunks and an end, by a result, or by an error, whatever happens to it.
These replies are numbered from 0 by ``seq`` in their metadata, and the last has ``fin`` true, as in
dora's streaming pattern: dora may lose a message, and a number that is left out tells. ``instance``
in the metadata changes when the provider node is started anew.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from mofa_gguf.contract import SerializationError

REQUEST_ID = "request_id"
SEQ = "seq"
INSTANCE = "instance"

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


def first_missed(message: Json) -> int:
    """The number of the first reply that was not heard: what ``again`` says, 0 of other messages.

    Raises:
        SerializationError: ``again`` says none.
    """
    if message["op"] != "again":
        return 0
    first = message.get("from")
    if isinstance(first, bool) or not isinstance(first, int) or first < 0:
        raise SerializationError("an again has no from, the number of the first reply not heard")
    return first

"""An input line, as the request it asks for.

Two forms are read, each a JSON object on a line:

- a line of OpenAI's batch files: ``{"custom_id", "method": "POST", "url", "body"}`` with one of
  ``ENDPOINTS`` as its url (https://platform.openai.com/docs/guides/batch);
- a plain request: ``messages``, or ``prompt`` (a user's message), or ``input`` (to embed), with any
  parameters beside it and, where wanted, a ``custom_id``; without one it is called ``line-N``.

A line that is neither is a failure of that line, not of the batch.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mofa_gguf.batch.options import BatchOptions
from mofa_gguf.contract import (
    ChatCompletionRequest,
    ChatMessage,
    EmbeddingRequest,
    SerializationError,
)
from mofa_gguf.host.asked import openai_message

Request = ChatCompletionRequest | EmbeddingRequest

_BATCH_KEYS = frozenset({"method", "url", "body"})
_LIMIT_KEYS = frozenset({"max_tokens", "max_completion_tokens"})


class LineError(Exception):
    """A line asks for nothing that can be done; ``code`` and the sentence go into its answer."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass(frozen=True)
class Job:
    """A line of the input: its request, or why there is none."""

    number: int
    custom_id: str | None
    request: Request | LineError


def read_job(number: int, line: bytes, options: BatchOptions) -> Job:
    """What line ``number`` (from 1) asks for."""
    custom_id: str | None = None
    try:
        data = _object_of(line)
        custom_id = custom_id_of(number, data)
        if _BATCH_KEYS & data.keys():
            make, body = _batch_line(data)
        else:
            make, body = _plain_line(data)
        if options.ignore_model:
            body = {key: value for key, value in body.items() if key != "model"}
        request = make(body, options)
    except LineError as error:
        return Job(number, custom_id, error)
    except SerializationError as error:
        return Job(number, custom_id, LineError("invalid_request", error.message))
    return Job(number, custom_id, request)


def read_custom_id(number: int, line: bytes) -> str | None:
    """Only what the line is called; None where it is malformed."""
    try:
        return custom_id_of(number, _object_of(line))
    except LineError:
        return None


def custom_id_of(number: int, data: dict[str, Any]) -> str:
    """What a line is called. Raises LineError where it has to say so, or says something else."""
    if "custom_id" not in data and not _BATCH_KEYS & data.keys():
        return f"line-{number}"
    custom_id = data.get("custom_id")
    if not isinstance(custom_id, str) or not custom_id:
        raise LineError("invalid_request", "custom_id has to be a text that is not empty")
    return custom_id


def _object_of(line: bytes) -> dict[str, Any]:
    try:
        data = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise LineError("invalid_json", f"the line is not valid JSON ({error})") from error
    if not isinstance(data, dict):
        kind = "null" if data is None else _kind(data)
        raise LineError("invalid_json", f"the line is {kind}; give a JSON object")
    return data


def _batch_line(data: dict[str, Any]) -> tuple[_Maker, dict[str, Any]]:
    url = data.get("url")
    make = ENDPOINTS.get(url) if isinstance(url, str) else None
    if make is None:
        known = " or ".join(ENDPOINTS)
        raise LineError("invalid_request", f"there is no url {url!r} here; use {known}")
    method = data.get("method", "POST")
    if method != "POST":
        raise LineError("invalid_request", f"the method is POST, not {method!r}")
    body = data.get("body")
    if not isinstance(body, dict):
        raise LineError("invalid_request", f"body is {_kind(body)}; give a JSON object")
    return make, body


def _plain_line(data: dict[str, Any]) -> tuple[_Maker, dict[str, Any]]:
    named = [key for key in _PLAIN if key in data]
    if len(named) != 1:
        have = " and ".join(named) or "none of them"
        raise LineError("invalid_request", f"give one of {', '.join(_PLAIN)}; the line has {have}")
    body = {key: value for key, value in data.items() if key != "custom_id"}
    if "prompt" in body:
        prompt = body.pop("prompt")
        if not isinstance(prompt, str):
            raise LineError("invalid_request", f"prompt is {_kind(prompt)}; give a text")
        body["messages"] = [ChatMessage.user(prompt)]
    return _PLAIN[named[0]], body


def _chat(body: dict[str, Any], options: BatchOptions) -> Request:
    defaults = options.defaults
    if _LIMIT_KEYS & body.keys():
        defaults.pop("max_tokens", None)
    # A line's answer is written whole, so that "stream" says nothing here.
    whole = {key: value for key, value in body.items() if key not in ("stream", "stream_options")}
    if isinstance(whole.get("messages"), list):
        whole["messages"] = list(map(openai_message, whole["messages"]))
    return ChatCompletionRequest.from_dict({**defaults, **whole})


def _embedding(body: dict[str, Any], options: BatchOptions) -> Request:
    return EmbeddingRequest.from_dict({"model": "", **body})


def _kind(value: Any) -> str:
    if value is None:
        return "missing"
    name = type(value).__name__
    return f"an {name}" if name[0] in "aeiou" else f"a {name}"


_Maker = Callable[[dict[str, Any], BatchOptions], Request]

ENDPOINTS: dict[str, _Maker] = {"/v1/chat/completions": _chat, "/v1/embeddings": _embedding}
"""The urls of batch lines that can be answered."""

_PLAIN: dict[str, _Maker] = {"messages": _chat, "prompt": _chat, "input": _embedding}

"""From a body of OpenAI's API to the contract's requests."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from starlette.requests import ClientDisconnect, Request

from mofa_gguf.contract import ChatCompletionRequest, EmbeddingRequest, SerializationError
from mofa_gguf.contract.base import ContractModel, ModelT, explain_validation
from mofa_gguf.server.errors import HttpError

JsonObject = dict[str, Any]

# What clients send for OpenAI's own purposes.
_WITHOUT_MEANING = ("prompt_cache_key", "prompt_cache_retention", "safety_identifier")


@dataclass(frozen=True)
class Asked:
    """A chat or completion request, and how the client wants to be answered."""

    request: ChatCompletionRequest
    streams: bool
    include_usage: bool


async def read_body(request: Request, *, n_bytes_max: int) -> JsonObject:
    """The body's JSON object. Raises HttpError (400, 413)."""
    body = bytearray()
    too_large = HttpError(
        413, f"the body is larger than the {n_bytes_max} bytes that this server reads"
    )
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > n_bytes_max:
        raise too_large
    try:
        async for piece in request.stream():
            body += piece
            if len(body) > n_bytes_max:
                raise too_large
    except ClientDisconnect:
        raise HttpError(400, "the client left before its request was whole") from None
    try:
        value = json.loads(bytes(body))
    except (ValueError, RecursionError) as error:
        raise HttpError(400, f"the body is not valid JSON ({error})") from error
    if not isinstance(value, dict):
        raise HttpError(400, f"the body is a JSON {type(value).__name__}; send an object")
    return value


def read_chat(body: JsonObject) -> Asked:
    """A body of /v1/chat/completions. Raises HttpError."""
    body = _common(body)
    include_usage = _includes_usage(body)
    messages = body.get("messages")
    if isinstance(messages, list):
        body["messages"] = [_message(message) for message in messages]
    request = _read(ChatCompletionRequest, body)
    return Asked(request, bool(request.stream), include_usage)


def read_embedding(body: JsonObject) -> EmbeddingRequest:
    """A body of /v1/embeddings; vectors are always fetched as numbers. Raises HttpError."""
    texts = body.get("input")
    if isinstance(texts, list) and texts and not isinstance(texts[0], str):
        raise HttpError(400, "input has token ids; send text", param="input")
    if texts in ("", []):
        raise HttpError(400, "input is empty; send at least one text", param="input")
    if body.get("encoding_format") not in (None, "float", "base64"):
        raise HttpError(
            400, "encoding_format is 'float' or 'base64', nothing else", param="encoding_format"
        )
    return _read(EmbeddingRequest, {"model": "", **body, "encoding_format": None})


def _common(body: JsonObject) -> JsonObject:
    return {
        key: value
        for key, value in body.items()
        # A null says the same as nothing, but for tool_choice, where MoFA's "auto" is null.
        if key not in _WITHOUT_MEANING and (value is not None or key == "tool_choice")
    }


def _includes_usage(body: JsonObject) -> bool:
    options = body.pop("stream_options", None) or {}
    if not isinstance(options, dict):
        raise HttpError(400, "stream_options is no object", param="stream_options")
    return bool(options.get("include_usage"))


def _message(message: Any) -> Any:
    """OpenAI's newer name of the system's role."""
    if isinstance(message, dict) and message.get("role") == "developer":
        return {**message, "role": "system"}
    return message


def read_options(body: JsonObject) -> Asked:
    """What a body without messages says of its generation. Raises HttpError."""
    body = _common(body)
    include_usage = _includes_usage(body)
    request = _read(ChatCompletionRequest, body)
    return Asked(request, bool(request.stream), include_usage)


def _read(kind: type[ModelT], body: JsonObject) -> ModelT:
    assert issubclass(kind, ContractModel)
    try:
        return kind.from_dict(body)
    except SerializationError as error:
        cause = error.__cause__
        if not isinstance(cause, ValidationError):
            raise HttpError(400, error.message) from error
        field, problem = explain_validation(cause)
        raise HttpError(400, problem, param=field) from error

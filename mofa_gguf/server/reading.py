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
from mofa_gguf.server.shapes import message_of, tools_of

JsonObject = dict[str, Any]

_STREAM_OPTIONS = ("include_usage", "include_obfuscation")
_OF_EMBEDDINGS = ("model", "input", "encoding_format", "dimensions", "user")


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
    messages = body.get("messages")
    if isinstance(messages, list):
        read = [message_of(each, f"messages.{number}") for number, each in enumerate(messages)]
        body = {**body, "messages": read}
    return read_options(tools_of(body))


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
    unknown = [name for name in body if name not in _OF_EMBEDDINGS and body[name] is not None]
    if unknown:
        raise HttpError(
            400,
            f"there is no parameter {unknown[0]!r} of embeddings; known are "
            + ", ".join(_OF_EMBEDDINGS),
            param=unknown[0],
        )
    return _read(EmbeddingRequest, {"model": "", **body, "encoding_format": None})


def _common(body: JsonObject) -> JsonObject:
    return {
        key: value
        for key, value in body.items()
        # A null says the same as nothing, but for tool_choice, where MoFA's "auto" is null.
        if value is not None or key == "tool_choice"
    }


def _includes_usage(body: JsonObject) -> bool:
    options = body.pop("stream_options", None) or {}
    if not isinstance(options, dict):
        raise HttpError(400, "stream_options is no object", param="stream_options")
    for name, value in options.items():
        where = f"stream_options.{name}"
        if name not in _STREAM_OPTIONS:
            known = " and ".join(_STREAM_OPTIONS)
            raise HttpError(400, f"there is no {where}; known are {known}", param=where)
        if value is not None and not isinstance(value, bool):
            raise HttpError(400, f"{where} is true or false, nothing else", param=where)
    if options.get("include_obfuscation"):
        raise HttpError(
            400,
            "pieces are not padded here; leave include_obfuscation out, or ask without stream",
            param="stream_options.include_obfuscation",
        )
    return options.get("include_usage") is True


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

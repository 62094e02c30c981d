"""The contract's requests as bodies of OpenAI's API.

Where the two differ: MoFA's content parts have no ``type``; its ``Auto`` is null; a JSON Schema may
be bare; and ``extra`` has what only some servers know, which is passed on as it is.
"""

from __future__ import annotations

from typing import Any

from mofa_gguf.contract import (
    AudioPart,
    ChatCompletionRequest,
    ChatMessage,
    ContentPart,
    ImagePart,
    ProviderNotSupported,
    ResponseFormat,
    TextPart,
    ToolChoice,
)
from mofa_openai.settings import OpenAIConfig

JsonObject = dict[str, Any]

# Keys of ``extra`` that are meant for us or for other providers, never for a server.
_KEPT_HERE = frozenset({"timeout_s", "session_id", "stream", "stream_options"})


def chat_body(request: ChatCompletionRequest, model: str, config: OpenAIConfig) -> JsonObject:
    """What is posted for a chat request, but for ``stream``.

    Raises:
        ProviderNotSupported: a message has a video, or an image where there is no vision.
        ConfigError: the response format's schema is none.
    """
    body = request.to_dict()
    for key in (*_KEPT_HERE, "model", "messages", "tool_choice", "response_format"):
        body.pop(key, None)
    body["model"] = model
    body["messages"] = [_message(message, config) for message in request.messages]
    if not request.tools:
        body.pop("tools", None)
    elif request.tool_choice is not None:
        choice = request.tool_choice
        body["tool_choice"] = choice.value if isinstance(choice, ToolChoice) else choice.to_dict()
    if request.response_format is not None:
        body["response_format"] = _response_format(request.response_format)
    if config.default_temperature is not None:
        body.setdefault("temperature", config.default_temperature)
    limit = body.pop("max_tokens", body.pop("max_completion_tokens", config.default_max_tokens))
    if limit is not None:
        body[config.max_tokens_key] = limit
    return body


def deadline_of(request: ChatCompletionRequest, config: OpenAIConfig) -> float:
    """Seconds the request may take: its own ``timeout_s``, or the configured ones."""
    own = request.extra.get("timeout_s")
    usable = isinstance(own, int | float) and not isinstance(own, bool) and own > 0
    return float(own) if usable and own is not None else config.timeout_s


def _message(message: ChatMessage, config: OpenAIConfig) -> JsonObject:
    body = message.to_dict()
    body.pop("reasoning_content", None)
    if message.content is None:
        body["content"] = None
    elif not isinstance(message.content, str):
        body["content"] = [_part(part, config) for part in message.content]
    return body


def _part(part: ContentPart, config: OpenAIConfig) -> JsonObject:
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.text}
    if isinstance(part, ImagePart):
        if not config.vision:
            raise ProviderNotSupported(
                f"{config.kind} is configured without vision, and a message has an image",
                provider=config.kind,
            )
        return {"type": "image_url", "image_url": part.image_url.to_dict()}
    if isinstance(part, AudioPart):
        return {"type": "input_audio", "input_audio": part.audio.to_dict()}
    raise ProviderNotSupported(
        f"OpenAI's API takes no video, and a message to {config.kind} has one", provider=config.kind
    )


def _response_format(wanted: ResponseFormat) -> JsonObject:
    spec = wanted.schema_spec()
    if spec is None:
        return {"type": wanted.format_type}
    wrapper: JsonObject = {"name": spec.name or "answer", "schema": spec.schema}
    if spec.strict is not None:
        wrapper["strict"] = spec.strict
    return {"type": "json_schema", "json_schema": wrapper}

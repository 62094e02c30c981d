"""What a client may be asked with, made into a request."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mofa_gguf.contract.errors import ConfigError
from mofa_gguf.contract.messages import ChatMessage
from mofa_gguf.contract.requests import ChatCompletionRequest

Conversation = (
    str
    | ChatMessage
    | ChatCompletionRequest
    | Mapping[str, Any]
    | Sequence[ChatMessage | Mapping[str, Any]]
)
"""What ``chat`` takes: a user's text, one message, several, or a request; dicts are messages."""


def openai_message(message: Any) -> Any:
    """A message of OpenAI's JSON in MoFA's words; what is no object is given back as it is.

    OpenAI's newer name of the system's role is ``developer``.
    """
    if isinstance(message, Mapping) and message.get("role") == "developer":
        return {**message, "role": "system"}
    return message


def as_request(conversation: Conversation) -> ChatCompletionRequest:
    """The request of a conversation.

    Raises:
        ConfigError: it is nothing that can be asked.
        pydantic.ValidationError: one of its messages is none.
    """
    if isinstance(conversation, ChatCompletionRequest):
        return conversation
    if isinstance(conversation, str):
        messages: list[Any] = [ChatMessage.user(conversation)]
    elif isinstance(conversation, ChatMessage | Mapping):
        messages = [conversation]
    elif isinstance(conversation, Iterable) and not isinstance(conversation, bytes | type):
        messages = list(conversation)
    else:
        said = "None" if conversation is None else f"a {type(conversation).__name__}"
        raise ConfigError(
            f"{said} is nothing to ask; give a text, a message, a list of messages or a request",
            field="messages",
        )
    return ChatCompletionRequest(messages=list(map(openai_message, messages)))


def as_text(text: str, where: str) -> str:
    """The text. Raises ConfigError, which names ``where``, for anything else."""
    if not isinstance(text, str):
        raise ConfigError(f"{where} is no text but a {type(text).__name__}", field=where)
    return text

"""Whether a request is made of the contract's types.

Its constructors see to that; its builders (``with_tools``, ``message``) and assignments take what
they are given.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mofa_gguf.contract import (
    ChatCompletionRequest,
    ChatMessage,
    ConfigError,
    EmbeddingRequest,
    ResponseFormat,
    Role,
    SpecificToolChoice,
    Tool,
    ToolChoice,
)

_FIELDS: Mapping[str, tuple[type, ...]] = {
    "model": (str, type(None)),
    "messages": (list, tuple),
    "tools": (list, tuple, type(None)),
    "tool_choice": (ToolChoice, SpecificToolChoice, type(None)),
    "response_format": (ResponseFormat, type(None)),
    "extra": (Mapping,),
}
_ITEMS: Mapping[str, type] = {"messages": ChatMessage, "tools": Tool}


def check_request(request: Any) -> None:
    """Raises ConfigError for what is no request, or holds what the contract's types cannot be."""
    _check(request, ChatCompletionRequest)
    for field, kinds in _FIELDS.items():
        value = getattr(request, field)
        if not isinstance(value, kinds):
            wanted = _named(kinds[0])
            raise ConfigError(
                f"{field} of the request is {_named(type(value))}, not {wanted}; "
                "ChatCompletionRequest.from_dict reads JSON",
                field=field,
            )
    for field, kind in _ITEMS.items():
        for number, item in enumerate(getattr(request, field) or ()):
            if not isinstance(item, kind):
                raise ConfigError(
                    f"{field}.{number} is {_named(type(item))}, not {_named(kind)}; "
                    f"{kind.__name__}.from_dict reads JSON",
                    field=f"{field}.{number}",
                )
    for number, message in enumerate(request.messages):
        _check_said(message, number)


def check_embedding_request(request: Any) -> None:
    """Raises ConfigError for what is no request of the contract."""
    _check(request, EmbeddingRequest)


def _check(request: Any, kind: type) -> None:
    if not isinstance(request, kind):
        raise ConfigError(
            f"a request is {_named(kind)}, not {_named(type(request))}; "
            f"{kind.__name__}.from_dict reads JSON, LLMClient takes text and dicts",
            field="request",
        )


def _check_said(message: ChatMessage, number: int) -> None:
    """An answer may be calls alone, and a tool may have nothing to say; a user says something."""
    if message.content is None and message.role in (Role.USER, Role.SYSTEM):
        raise ConfigError(
            f"messages.{number} of the {message.role} has no content; give it text",
            field=f"messages.{number}.content",
        )


def _named(kind: type) -> str:
    """The type with its article."""
    name = kind.__name__
    return f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}" if name != "NoneType" else "None"

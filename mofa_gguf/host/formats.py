"""Answers of a certain form: what a request says of it, and reading the answer back.

A form is given as a Python type (a pydantic model, a dataclass, a TypedDict, ``list[int]``, ...),
as a JSON Schema, or as a ``ResponseFormat``.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Mapping
from typing import Any

from pydantic import PydanticUserError, TypeAdapter, ValidationError

from mofa_gguf.contract.base import explain_validation
from mofa_gguf.contract.errors import ConfigError, SerializationError
from mofa_gguf.contract.requests import ResponseFormat
from mofa_gguf.contract.responses import ChatCompletionResponse, FinishReason
from mofa_gguf.host.function_tools import tidied

_FORMAT_TYPES = ("text", "json_object", "json_schema")
_NAME_CHARS = 64
_FENCED = re.compile(r"\A```(?:json)?[ \t]*\n(.*?)\n?```\Z", re.DOTALL | re.IGNORECASE)


def as_response_format(form: Any) -> Any:
    """What goes into a request's ``response_format``.

    A mapping whose "type" is one of the format types is left for the request to read; any other is
    a JSON Schema. A Python type becomes ``{"name", "schema"}``, as OpenAI wraps it.

    Raises:
        ConfigError: a type has no JSON Schema.
    """
    if form is None or isinstance(form, ResponseFormat):
        return form
    if isinstance(form, Mapping):
        is_format = form.get("type") in _FORMAT_TYPES
        return form if is_format else ResponseFormat.json_schema(dict(form))
    if isinstance(form, str | int | float):
        return form  # the request says what is wrong with it
    name = name_of(form)
    try:
        schema = _adapter(form).json_schema()
    except PydanticUserError as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise ConfigError(
            f"{name} cannot be a response_format: it has no JSON Schema ({reason})",
            field="response_format",
        ) from error
    return ResponseFormat.json_schema({"name": name, "schema": tidied(schema)})


def read_answer(response: ChatCompletionResponse, form: Any) -> Any:
    """The answer's JSON as a value of ``form``; where that is no Python type, as it is decoded.

    A fence of backticks around the JSON is taken off. Against a bare JSON Schema nothing is checked
    here: obeying it is the provider's promise.

    Raises:
        SerializationError: the answer is not JSON, or no such value (``content`` is the answer).
    """
    text = unfenced(response.content() or "")
    try:
        if form is None or isinstance(form, ResponseFormat | Mapping):
            return json.loads(text)
        return _adapter(form).validate_json(text)
    except ValidationError as error:
        problem = explain_validation(error)[1]
        cause: Exception = error
    except (ValueError, RecursionError) as error:
        problem, cause = f"not valid JSON ({error})", error
    short = response.finish_reason() is FinishReason.LENGTH
    raise SerializationError(
        f"the answer is no {name_of(form)}: {problem}"
        f"{'; it was cut off: allow more with max_tokens' if short else ''}",
        content=response.content(),
    ) from cause


def unfenced(text: str) -> str:
    """A text without the fence of backticks that models like to put around JSON."""
    text = text.strip()
    match = _FENCED.match(text)
    return match[1].strip() if match else text


def name_of(form: Any) -> str:
    """What a form is called in requests and sentences."""
    if form is None or isinstance(form, ResponseFormat | Mapping):
        return "JSON"
    name = form.__name__ if inspect.isclass(form) and not hasattr(form, "__args__") else str(form)
    return re.sub(r"[^a-zA-Z0-9_-]+", "_", name).strip("_")[:_NAME_CHARS] or "answer"


def _adapter(form: Any) -> TypeAdapter[Any]:
    return form if isinstance(form, TypeAdapter) else TypeAdapter(form)

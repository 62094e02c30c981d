"""Chat requests.

Two shapes here differ from what one would guess:

- ``tool_choice``: MoFA's enum is written by serde as an untagged one, so ``Auto``, ``None`` and
  ``Required`` all become ``null`` on the wire and a string cannot be read back there. Read are
  null (as ``AUTO``), "auto", "none", "required" and an object. Written are ``AUTO`` as null, and
  ``NONE`` and ``REQUIRED`` as their strings: as null they would silently turn into ``AUTO``. A
  request without the key has ``tool_choice`` None.
- ``response_format``: MoFA's constructor stores the bare schema in ``json_schema``, OpenAI wraps it
  as ``{"name", "schema", "strict"}``. Both are kept as they came; ``ResponseFormat.schema_spec``
  gives the schema, name and strictness of either.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, overload

from pydantic import Field, StrictBool, field_validator

from mofa_gguf.contract.base import F32, U32, ContractModel, FlattenedModel, JsonObject
from mofa_gguf.contract.errors import ConfigError
from mofa_gguf.contract.messages import ChatMessage
from mofa_gguf.contract.tools import AnyToolChoice, Tool, ToolChoice

_WRAPPER_KEYS = frozenset({"name", "schema", "strict", "description"})


@dataclass(frozen=True)
class JsonSchemaSpec:
    """The schema an answer must obey; ``name`` and ``strict`` if OpenAI's wrapper has them."""

    schema: JsonObject | bool
    name: str | None = None
    strict: bool | None = None


class _FormatMaker(Protocol):
    def __call__(self, schema: Any) -> ResponseFormat: ...


class _SchemaOfFormat:
    """``ResponseFormat.json_schema``: on the class MoFA's constructor, on a format its schema."""

    @overload
    def __get__(self, value: None, owner: type[ResponseFormat]) -> _FormatMaker: ...
    @overload
    def __get__(self, value: ResponseFormat, owner: type[ResponseFormat]) -> Any: ...
    def __get__(self, value: ResponseFormat | None, owner: type[ResponseFormat]) -> Any:
        return owner._with_schema if value is None else value.schema_value


class ResponseFormat(ContractModel):
    """What form the answer must have.

    ``format_type`` is the JSON key ``type``. ``ResponseFormat.json_schema(schema)`` makes one;
    ``response_format.json_schema`` is what it holds, JSON key ``json_schema`` (the pydantic field
    behind it is ``schema_value``).
    """

    format_type: Literal["text", "json_object", "json_schema"] = Field(
        validation_alias="type", serialization_alias="type"
    )
    schema_value: Any = Field(default=None, alias="json_schema")
    json_schema: ClassVar[_SchemaOfFormat] = _SchemaOfFormat()

    @classmethod
    def text(cls) -> ResponseFormat:
        """Any text."""
        return cls(format_type="text")

    @classmethod
    def json(cls) -> ResponseFormat:  # type: ignore[override]  # MoFA's name; pydantic's is retired
        """Any JSON object."""
        return cls(format_type="json_object")

    @classmethod
    def _with_schema(cls, schema: Any) -> ResponseFormat:
        """JSON that obeys a schema, given bare or in OpenAI's wrapper."""
        return cls(format_type="json_schema", json_schema=schema)

    def schema_spec(self) -> JsonSchemaSpec | None:
        """The schema to obey, taken out of OpenAI's wrapper if it is in one; None for other types.

        An object is taken for the wrapper when it has a "schema" or a "name" and no key but the
        wrapper's four: none of these is a JSON Schema keyword, except "description".

        Raises:
            ConfigError: the type is json_schema and there is no schema, or it is no schema.
        """
        if self.format_type != "json_schema":
            return None
        held = self.schema_value
        if isinstance(held, bool):
            return JsonSchemaSpec(held)
        if not isinstance(held, Mapping):
            problem = "is missing" if held is None else f"is a {type(held).__name__}"
            raise ConfigError(
                f"response_format.json_schema {problem}; give a JSON Schema object, bare or as "
                '{"name": ..., "schema": ..., "strict": ...}',
                field="response_format.json_schema",
            )
        if not (held.keys() <= _WRAPPER_KEYS and ("schema" in held or "name" in held)):
            return JsonSchemaSpec(dict(held))
        schema = held.get("schema", {})
        if not isinstance(schema, Mapping | bool):
            raise ConfigError(
                f"response_format.json_schema.schema is a {type(schema).__name__}; "
                "give a JSON Schema object",
                field="response_format.json_schema.schema",
            )
        name, strict = held.get("name"), held.get("strict")
        return JsonSchemaSpec(
            schema if isinstance(schema, bool) else dict(schema),
            name=name if isinstance(name, str) else None,
            strict=strict if isinstance(strict, bool) else None,
        )


class ChatCompletionRequest(FlattenedModel):
    """Asks for the next message of a conversation; an empty ``model`` is the provider's default.

    Everything MoFA has no field for (top_k, seed, grammar, ...) travels in ``extra`` and is written
    beside the other keys.

    The builders each return a changed copy, so a common beginning can be shared:
    ``ChatCompletionRequest.new("m").system("Be brief.").user_message("Hi").with_temperature(0)``.
    A Python attribute cannot be field and method at once, so MoFA's builders that share a field's
    name are called ``user_message``, ``with_temperature``, ``with_max_tokens``, ``with_tools`` and
    ``with_stream`` here.
    """

    model: str = ""
    messages: list[ChatMessage] = Field(default_factory=list)
    temperature: F32 | None = None
    top_p: F32 | None = None
    max_tokens: U32 | None = None
    stop: list[str] | None = None
    stream: StrictBool | None = None
    tools: list[Tool] | None = None
    tool_choice: AnyToolChoice | None = None
    frequency_penalty: F32 | None = None
    presence_penalty: F32 | None = None
    user: str | None = None
    response_format: ResponseFormat | None = None

    @field_validator("tool_choice", mode="before")
    @classmethod
    def _read_null_choice(cls, value: Any) -> Any:
        return ToolChoice.AUTO if value is None else value

    @field_validator("stop", mode="before")
    @classmethod
    def _read_single_stop(cls, value: Any) -> Any:
        # OpenAI's clients may send one string.
        return [value] if isinstance(value, str) else value

    def _finish_writing(self, written: JsonObject) -> JsonObject:
        if self.tool_choice is ToolChoice.AUTO and "tool_choice" in written:
            written["tool_choice"] = None
        return super()._finish_writing(written)

    @classmethod
    def new(cls, model: str = "") -> ChatCompletionRequest:
        """A request without messages."""
        return cls(model=model)

    def message(self, message: ChatMessage) -> ChatCompletionRequest:
        """With one more message."""
        return self.model_copy(update={"messages": [*self.messages, message]})

    def system(self, content: str) -> ChatCompletionRequest:
        """With one more system message."""
        return self.message(ChatMessage.system(content))

    def user_message(self, content: str) -> ChatCompletionRequest:
        """With one more user message."""
        return self.message(ChatMessage.user(content))

    def with_temperature(self, temperature: float) -> ChatCompletionRequest:
        """With this temperature."""
        return self._with(temperature=temperature)

    def with_max_tokens(self, max_tokens: int) -> ChatCompletionRequest:
        """With at most this many generated tokens."""
        return self._with(max_tokens=max_tokens)

    def tool(self, tool: Tool) -> ChatCompletionRequest:
        """With one more tool."""
        return self.model_copy(update={"tools": [*(self.tools or []), tool]})

    def with_tools(self, tools: Sequence[Tool]) -> ChatCompletionRequest:
        """With these tools instead of any others."""
        return self.model_copy(update={"tools": list(tools)})

    def with_stream(self) -> ChatCompletionRequest:
        """Marked as wanting a stream."""
        return self.model_copy(update={"stream": True})

    def with_options(self, options: Mapping[str, Any]) -> ChatCompletionRequest:
        """With these fields replaced; keys that are no fields go to ``extra``.

        Raises:
            pydantic.ValidationError: an option has the wrong type.
        """
        return self._with(**options)

    def _with(self, **changes: Any) -> ChatCompletionRequest:
        fields = type(self).model_fields
        checked = ChatCompletionRequest(**changes)
        update = {name: getattr(checked, name) for name in checked.model_fields_set & set(fields)}
        if "extra" in update:
            update["extra"] = {**self.extra, **checked.extra}
        return self.model_copy(update=update)

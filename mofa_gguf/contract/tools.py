"""Tools a model may call, its calls, and how much choice it has.

JSON shapes: ``ToolCall`` is ``{"id", "type", "function": {"name", "arguments"}}`` with the
arguments as JSON text; ``Tool`` is ``{"type", "function": {"name", "description", "parameters",
"strict"}}``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import Enum
from typing import Annotated, Any, ClassVar, Protocol, overload

from pydantic import Discriminator, Field, StrictBool, Tag, field_validator

from mofa_gguf.contract.base import ContractModel, JsonObject
from mofa_gguf.contract.errors import SerializationError


class FunctionCall(ContractModel):
    """The function a model calls, with its arguments as JSON text."""

    name: str
    arguments: str

    @field_validator("arguments", mode="before")
    @classmethod
    def _write_object(cls, value: Any) -> Any:
        # MoFA and OpenAI send text; Ollama and many chat templates send the object itself.
        if not isinstance(value, Mapping):
            return value
        try:
            return json.dumps(value, ensure_ascii=False)
        except (TypeError, RecursionError) as error:
            raise ValueError(f"the arguments cannot be written as JSON ({error})") from error

    def parse_arguments(self) -> JsonObject:
        """The arguments as a dictionary; empty text means no arguments.

        Raises:
            SerializationError: the text is not a JSON object.
        """
        try:
            value = json.loads(self.arguments) if self.arguments.strip() else {}
        except ValueError as error:
            raise SerializationError(
                f"the arguments of the call to {self.name!r} are not valid JSON ({error})",
                content=self.arguments,
            ) from error
        if not isinstance(value, dict):
            raise SerializationError(
                f"the arguments of the call to {self.name!r} are {json.dumps(value)[:60]}, "
                "not a JSON object",
                content=self.arguments,
            )
        return value


class ToolCall(ContractModel):
    """One call of a tool by the model; ``call_type`` is the JSON key ``type``."""

    id: str
    call_type: str = Field(default="function", validation_alias="type", serialization_alias="type")
    function: FunctionCall

    @classmethod
    def new(cls, id: str, name: str, arguments: str | Mapping[str, Any] = "{}") -> ToolCall:
        """A function call; arguments as JSON text or as a mapping, which is written as JSON."""
        function = FunctionCall.model_validate({"name": name, "arguments": arguments})
        return cls(id=id, function=function)


class FunctionDefinition(ContractModel):
    """What a model is told of a function; ``parameters`` is a JSON Schema."""

    name: str
    description: str | None = None
    parameters: Any = None
    strict: StrictBool | None = None


class _ToolMaker(Protocol):
    def __call__(self, name: str, description: str, parameters: Any = None) -> Tool: ...


class _FunctionOfTool:
    """``Tool.function``: on the class MoFA's constructor, on a tool its definition.

    Rust lets a field and a constructor share a name; a Python class attribute cannot be both, so
    this descriptor answers according to who asks.
    """

    @overload
    def __get__(self, tool: None, owner: type[Tool]) -> _ToolMaker: ...
    @overload
    def __get__(self, tool: Tool, owner: type[Tool]) -> FunctionDefinition: ...
    def __get__(self, tool: Tool | None, owner: type[Tool]) -> _ToolMaker | FunctionDefinition:
        return owner._make if tool is None else tool.function_definition


class Tool(ContractModel):
    """A tool the model may call.

    ``tool_type`` is the JSON key ``type``. ``Tool.function(name, description, parameters)`` makes
    one; ``tool.function`` is its definition, JSON key ``function`` (the pydantic field behind it
    is ``function_definition``).
    """

    tool_type: str = Field(default="function", validation_alias="type", serialization_alias="type")
    function_definition: FunctionDefinition = Field(alias="function")
    function: ClassVar[_FunctionOfTool] = _FunctionOfTool()

    @classmethod
    def _make(cls, name: str, description: str, parameters: Any = None) -> Tool:
        """A function tool; ``parameters`` goes through ``normalize_schema``."""
        definition = FunctionDefinition(
            name=name, description=description, parameters=normalize_schema(parameters)
        )
        return cls(function=definition)


class ToolChoiceFunction(ContractModel):
    """The name of the one function that must be called."""

    name: str


class SpecificToolChoice(ContractModel):
    """MoFA's ``ToolChoice::Specific``; ``choice_type`` is the JSON key ``type``."""

    choice_type: str = Field(
        default="function", validation_alias="type", serialization_alias="type"
    )
    function: ToolChoiceFunction


class ToolChoice(str, Enum):
    """How much choice the model has: tools as it likes, none, or at least one call."""

    AUTO = "auto"
    NONE = "none"
    REQUIRED = "required"

    def __str__(self) -> str:
        return self.value

    @staticmethod
    def specific(name: str) -> SpecificToolChoice:
        """The model must call this function."""
        return SpecificToolChoice(function=ToolChoiceFunction(name=name))


def _tool_choice_branch(value: Any) -> str:
    return "<specific>" if isinstance(value, Mapping | SpecificToolChoice) else "<mode>"


AnyToolChoice = Annotated[
    Annotated[ToolChoice, Tag("<mode>")] | Annotated[SpecificToolChoice, Tag("<specific>")],
    Discriminator(_tool_choice_branch),
]
"""Any of MoFA's four tool choices."""


def normalize_schema(schema: Any) -> JsonObject:
    """A parameters schema as MoFA normalises it.

    What is not an object becomes the empty object schema; ``type`` defaults to "object" and
    ``properties`` to ``{}``. The argument is left as it is.
    """
    normal: JsonObject = dict(schema) if isinstance(schema, Mapping) else {}
    normal.setdefault("type", "object")
    normal.setdefault("properties", {})
    return normal

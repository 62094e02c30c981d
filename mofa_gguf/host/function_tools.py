"""Python functions as tools: their schema, and calling them with a model's arguments.

The schema comes from the signature's type hints through pydantic, descriptions from ``Annotated``
hints or the docstring. Arguments are validated against the same hints before the call, so a
function that asks for an ``int``, an enum or a pydantic model gets one.
"""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PydanticUndefinedAnnotation,
    PydanticUserError,
    TypeAdapter,
    ValidationError,
    create_model,
)
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema

from mofa_gguf.contract.base import JsonObject, explain_validation
from mofa_gguf.contract.errors import ConfigError, SerializationError
from mofa_gguf.contract.tools import FunctionDefinition, Tool, normalize_schema
from mofa_gguf.host.docstrings import parse_docstring

_CANNOT_BE_NAMED = {
    inspect.Parameter.POSITIONAL_ONLY: "is positional-only",
    inspect.Parameter.VAR_POSITIONAL: "takes any number of arguments",
    inspect.Parameter.VAR_KEYWORD: "takes arguments of any name",
}
_ANYTHING: TypeAdapter[Any] = TypeAdapter(Any)


class _QuietSchema(GenerateJsonSchema):
    """A default that JSON cannot say stays out of the schema, without a warning."""

    def emit_warning(self, kind: Any, detail: str) -> None:
        """Say nothing: the function's own default holds."""


@dataclass(frozen=True)
class FunctionTool:
    """A Python function with what a model is told of it; made by ``FunctionTool.of``."""

    function: Callable[..., Any]
    tool: Tool
    arguments: type[BaseModel]
    parameters: tuple[str, ...]
    """The function's parameters, in the order of the fields of ``arguments``."""
    filled: frozenset[str] = frozenset()
    """The parameters whose default is a pydantic ``Field``, which Python itself cannot resolve."""

    @classmethod
    def of(
        cls,
        function: Callable[..., Any],
        *,
        name: str | None = None,
        description: str | None = None,
    ) -> FunctionTool:
        """Make a tool of a function, method or callable object, synchronous or not.

        Args:
            function: every parameter must have a name a caller can use.
            name: what the model calls it; the function's own name without one.
            description: what the model is told; the docstring's description without one.

        Raises:
            ConfigError: a parameter cannot be named, or its type has no JSON Schema.
        """
        name = name or _name_of(function)
        documentation = parse_docstring(_docstring_of(function))
        signature = _signature_of(function, name)
        arguments = _arguments_model(function, name, signature, documentation.arguments)
        definition = FunctionDefinition(
            name=name,
            description=(description or documentation.description) or None,
            parameters=normalize_schema(_schema_of(arguments, name)),
        )
        filled = (p.name for p in signature.parameters.values() if isinstance(p.default, FieldInfo))
        return cls(
            function,
            Tool(function=definition),
            arguments,
            tuple(signature.parameters),
            frozenset(filled),
        )

    @property
    def name(self) -> str:
        """What the model calls it."""
        return self.tool.function.name

    @property
    def is_async(self) -> bool:
        """Whether calling the function gives something to await."""
        called = _innermost(self.function)
        return inspect.iscoroutinefunction(called) or inspect.iscoroutinefunction(
            getattr(called, "__call__", None)  # noqa: B004 - which function it is, not whether
        )

    def bind(self, arguments: str) -> dict[str, Any]:
        """The validated keyword arguments for the function, from a call's JSON text.

        What the call leaves out is left out, so that the function's own default holds.

        Raises:
            SerializationError: the text is not JSON, or not what the function takes.
        """
        try:
            values = self.arguments.model_validate_json(arguments.strip() or "{}")
        except ValidationError as error:
            _, problem = explain_validation(error)
            raise SerializationError(
                f"the arguments of {self.name} are wrong: {problem}", content=arguments
            ) from error
        bound = {}
        for parameter, field in zip(self.parameters, type(values).model_fields, strict=True):
            if field in values.model_fields_set or parameter in self.filled:
                bound[parameter] = getattr(values, field)
        return bound


def result_text(value: Any) -> str:
    """What a model is told of a function's result: text as it is, anything else as JSON.

    What JSON cannot say is told as ``str`` has it.
    """
    if isinstance(value, str):
        return value
    try:
        return _ANYTHING.dump_json(value).decode()
    except ValueError:  # pydantic's serialization error
        return str(value)


def _name_of(function: Callable[..., Any]) -> str:
    function = _innermost(function)
    return str(getattr(function, "__name__", None) or type(function).__name__)


def _innermost(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function behind ``functools.partial``."""
    while isinstance(function, functools.partial):
        function = function.func
    return function


def _hinted(function: Callable[..., Any]) -> Callable[..., Any]:
    """Where a callable's hints and docstring are: an object's are those of its ``__call__``."""
    function = _innermost(function)
    if inspect.isroutine(function) or inspect.isclass(function):
        return function
    return type(function).__call__


def _docstring_of(function: Callable[..., Any]) -> str | None:
    return inspect.getdoc(_hinted(function)) or inspect.getdoc(_innermost(function))


def _signature_of(function: Callable[..., Any], name: str) -> inspect.Signature:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{name!r} cannot be a tool: {error}", field=name) from error
    for parameter in signature.parameters.values():
        if parameter.kind in _CANNOT_BE_NAMED:
            raise ConfigError(
                f"{name!r} cannot be a tool: its parameter {parameter.name!r} "
                f"{_CANNOT_BE_NAMED[parameter.kind]}, but a model names each argument",
                field=f"{name}.{parameter.name}",
            )
    return signature


def _arguments_model(
    function: Callable[..., Any],
    name: str,
    signature: inspect.Signature,
    descriptions: dict[str, str],
) -> type[BaseModel]:
    """A pydantic model of a function's parameters.

    Its fields have names of their own, with the parameters as aliases: a parameter may have a name
    that a field may not ("schema", "_x").
    """
    hints = _hints_of(function, name)
    fields: dict[str, Any] = {}
    for n, parameter in enumerate(signature.parameters.values()):
        hint = _described(hints.get(parameter.name, Any), descriptions.get(parameter.name))
        required = parameter.default is inspect.Parameter.empty
        default = ... if required else parameter.default
        fields[f"argument_{n}"] = (Annotated[hint, Field(alias=parameter.name)], default)
        if isinstance(default, FieldInfo):
            fields[f"argument_{n}"] = (
                hint,
                FieldInfo.merge_field_infos(
                    default, alias=parameter.name, validation_alias=parameter.name
                ),
            )
    try:
        return create_model(name, __config__=ConfigDict(extra="forbid"), **fields)
    except (PydanticUserError, PydanticUndefinedAnnotation) as error:
        raise _no_schema(name, error) from error


def _hints_of(function: Callable[..., Any], name: str) -> dict[str, Any]:
    try:
        return typing.get_type_hints(_hinted(function), include_extras=True)
    except (NameError, TypeError) as error:
        raise ConfigError(
            f"{name!r} cannot be a tool: its type hints cannot be read ({error})", field=name
        ) from error


def _described(hint: Any, description: str | None) -> Any:
    """The hint with a description, unless ``Annotated`` gives it one already.

    A plain text in ``Annotated`` is taken for the description.
    """
    extras = getattr(hint, "__metadata__", ())
    texts = [extra for extra in extras if isinstance(extra, str)]
    described = any(isinstance(extra, FieldInfo) and extra.description for extra in extras)
    text = texts[0] if texts else description
    return Annotated[hint, Field(description=text)] if text and not described else hint


def _schema_of(arguments: type[BaseModel], name: str) -> JsonObject:
    try:
        schema = arguments.model_json_schema(schema_generator=_QuietSchema)
    except PydanticUserError as error:
        raise _no_schema(name, error) from error
    parts = ("type", "properties", "required", "additionalProperties", "$defs")
    tidy = tidied(schema)
    return {part: tidy[part] for part in parts if part in tidy}


def _no_schema(name: str, error: Exception) -> ConfigError:
    reason = str(error).splitlines()[0].rstrip(".")
    return ConfigError(
        f"{name!r} cannot be a tool: a parameter's type has no JSON Schema ({reason})", field=name
    )


def tidied(schema: Any) -> Any:
    """A JSON Schema that pydantic made, as a model is to have it.

    Without the titles made of names, which only cost tokens. An object with known properties has no
    others, unless its type says so: a model that may go on with keys of its own often does, and
    pydantic would ignore them.
    """
    if isinstance(schema, list):
        return [tidied(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    tidy: JsonObject = {}
    for key, value in schema.items():
        if key in ("properties", "$defs"):  # names here, not keywords: one may be called "title"
            tidy[key] = {name: tidied(item) for name, item in value.items()}
        elif key in ("default", "enum", "const", "examples"):
            tidy[key] = value
        elif key != "title":
            tidy[key] = tidied(value)
    if "properties" in tidy:
        tidy.setdefault("additionalProperties", False)
    return tidy

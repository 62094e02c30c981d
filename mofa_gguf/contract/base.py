"""What every type of the contract shares: reading and writing MoFA's JSON.

MoFA's types are Rust structs written by serde, and these rules follow from that:

- an ``Option`` that is ``None`` is left out (a null inside a free-form value, such as
  a JSON schema, stays);
- keys that a type does not know are skipped when reading, except where the type has a flattened
  map of extra keys (``FlattenedModel``);
- a field whose Rust name differs from its JSON key (``call_type`` is written ``type``) can be
  given by either name in Python and is always written with its JSON key.

``model_dump`` and ``model_dump_json`` obey them as well: there is one written form, whatever
``by_alias`` or ``exclude_none`` say.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from mofa_gguf.contract.errors import SerializationError

JsonObject = dict[str, Any]
"""A JSON object as Python holds it."""

U32 = Annotated[int, Field(strict=True, ge=0, le=2**32 - 1)]
"""Rust's ``u32``: no bool, no text, no fraction."""

U64 = Annotated[int, Field(strict=True, ge=0, le=2**64 - 1)]
"""Rust's ``u64``."""

F32 = Annotated[float, Field(strict=True, allow_inf_nan=False)]
"""Rust's ``f32`` as JSON can carry it: finite."""

ModelT = TypeVar("ModelT", bound="ContractModel")

_N_PROBLEMS_SHOWN = 3


class ContractModel(BaseModel):
    """Base of the contract's types; see the module's rules for their JSON."""

    model_config = ConfigDict(populate_by_name=True)

    @classmethod
    def from_dict(cls: type[ModelT], data: Mapping[str, Any]) -> ModelT:
        """Read a decoded JSON object.

        Raises:
            SerializationError: a key is missing or holds the wrong thing; the sentence names it.
        """
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            _, problem = explain_validation(error)
            raise SerializationError(f"this is no {cls.__name__}: {problem}") from error

    @classmethod
    def from_json(cls: type[ModelT], text: str | bytes) -> ModelT:
        """Read a JSON text.

        Raises:
            SerializationError: the text is not JSON of this type (``content`` holds it).
        """
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise SerializationError(
                f"this is no {cls.__name__}: not valid JSON ({error})", content=_as_text(text)
            ) from error
        try:
            return cls.from_dict(data)
        except SerializationError as error:
            error.content = _as_text(text)
            raise

    def to_dict(self) -> JsonObject:
        """This value as a JSON object of MoFA's shape."""
        return self.model_dump(mode="json")

    def to_json(self, *, indent: int | None = None) -> str:
        """This value as JSON text of MoFA's shape."""
        return self.model_dump_json(indent=indent)

    @model_serializer(mode="wrap")
    def _write(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        dumped: dict[str, Any] = handler(self)
        written: dict[str, Any] = {}
        for name, field in type(self).model_fields.items():
            key = field.serialization_alias or name
            value = dumped[name] if name in dumped else dumped.get(key)
            if value is not None:
                written[key] = value
        return self._finish_writing(written)

    def _finish_writing(self, written: JsonObject) -> JsonObject:
        """Where a type's JSON differs from the rules, it says so here."""
        return written


class FlattenedModel(ContractModel):
    """A type whose unknown JSON keys are kept in ``extra`` and written beside its own keys.

    In Python, ``T(top_k=40)`` and ``T(extra={"top_k": 40})`` say the same. In JSON there is only
    the first form: ``from_dict`` and ``from_json`` read a key named "extra" as one more unknown
    key, as serde does.
    """

    extra: JsonObject = Field(default_factory=dict)

    @classmethod
    def from_dict(cls: type[ModelT], data: Mapping[str, Any]) -> ModelT:
        """Read a decoded JSON object; see ``ContractModel.from_dict``."""
        if isinstance(data, Mapping) and "extra" in data:
            own = _names_of(cls) - {"extra"}
            data = {
                **{key: value for key, value in data.items() if key in own},
                "extra": {key: value for key, value in data.items() if key not in own},
            }
        return super().from_dict(data)

    @model_validator(mode="before")
    @classmethod
    def _collect_extra(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        own = _names_of(cls)
        unknown = {key: value for key, value in data.items() if key not in own}
        given = data.get("extra", {})
        if not isinstance(given, Mapping):
            return data
        for key in given:
            if key in unknown:
                raise ValueError(f"{key!r} is given twice, by itself and in extra")
            if key in own - {"extra"}:
                raise ValueError(
                    f"{key!r} is a field of {cls.__name__}; set it there, not in extra"
                )
        if not unknown:
            return data
        known = {key: value for key, value in data.items() if key in own}
        return {**known, "extra": {**given, **unknown}}

    def _finish_writing(self, written: JsonObject) -> JsonObject:
        extra = written.pop("extra", {})
        return {**written, **{key: extra[key] for key in extra if key not in written}}


def explain_validation(error: ValidationError) -> tuple[str | None, str]:
    """The first wrong field of a pydantic error, and one line about what is wrong where.

    Returns:
        The dotted path of the first problem (None when it concerns the whole value), and the
        first few problems as "path: problem" joined by semicolons.
    """
    problems = []
    for detail in error.errors(include_url=False, include_context=False, include_input=False):
        # Union branches are tagged "<so>": they mean nothing to a reader.
        path = ".".join(str(part) for part in detail["loc"] if not str(part).startswith("<"))
        message = detail["msg"].removeprefix("Value error, ")
        message = message[:1].lower() + message[1:]
        problems.append((path, f"{path}: {message}" if path else message))
    shown = [text for _, text in problems[:_N_PROBLEMS_SHOWN]]
    if len(problems) > _N_PROBLEMS_SHOWN:
        shown.append(f"and {len(problems) - _N_PROBLEMS_SHOWN} more")
    return problems[0][0] or None, "; ".join(shown)


def _names_of(model: type[BaseModel]) -> set[str]:
    """Every key under which a model accepts one of its own fields."""
    names = set(model.model_fields)
    aliases = (field.validation_alias for field in model.model_fields.values())
    return names | {alias for alias in aliases if isinstance(alias, str)}


def _as_text(text: str | bytes) -> str:
    return text if isinstance(text, str) else text.decode("utf-8", errors="replace")

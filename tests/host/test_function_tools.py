"""Functions as tools: what a model is told of them, and what they are called with."""

from __future__ import annotations

import datetime
import functools
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, Literal, Optional

import pytest
from pydantic import BaseModel, Field

from mofa_gguf.contract import ConfigError, SerializationError
from mofa_gguf.host import FunctionTool
from mofa_gguf.host.function_tools import result_text


class Unit(str, Enum):
    CELSIUS = "celsius"
    FAHRENHEIT = "fahrenheit"


@dataclass
class Place:
    city: str
    country: str = "China"


class Booking(BaseModel):
    title: str
    place: Place


def properties_of(function: Callable[..., Any]) -> dict[str, Any]:
    parameters = FunctionTool.of(function).tool.function.parameters
    properties: dict[str, Any] = parameters["properties"]
    return properties


class TestSchema:
    def test_name_description_and_parameters_come_from_the_function(self) -> None:
        def get_weather(city: str, days: int = 1) -> str:
            """Get the weather of a city.

            Args:
                city: where
            """
            return city * days

        assert FunctionTool.of(get_weather).tool.to_dict() == {
            "type": "function",
            "function": {
                "name": "get_weather",
                "description": "Get the weather of a city.",
                "parameters": {
                    "type": "object",
                    "properties": {
                        "city": {"type": "string", "description": "where"},
                        "days": {"type": "integer", "default": 1},
                    },
                    "required": ["city"],
                    "additionalProperties": False,
                },
            },
        }

    def test_a_function_without_docstring_or_parameters_is_a_tool(self) -> None:
        def ping() -> None: ...

        assert FunctionTool.of(ping).tool.to_dict()["function"] == {
            "name": "ping",
            "parameters": {"type": "object", "properties": {}, "additionalProperties": False},
        }

    def test_name_and_description_can_be_given(self) -> None:
        def f() -> None:
            """One."""

        tool = FunctionTool.of(f, name="other", description="Two.").tool.function
        assert (tool.name, tool.description) == ("other", "Two.")

    def test_types_become_json_schema(self) -> None:
        def f(  # type: ignore[no-untyped-def]
            anything,
            choice: Literal["a", "b"],
            maybe: Optional[int],  # noqa: UP045
            either: int | None,
            many: list[float],
            by_name: dict[str, bool],
            day: datetime.date,
            bounded: Annotated[int, Field(ge=0, le=9)],
        ) -> None: ...

        nullable = {"anyOf": [{"type": "integer"}, {"type": "null"}]}
        assert properties_of(f) == {
            "anything": {},
            "choice": {"type": "string", "enum": ["a", "b"]},
            "maybe": nullable,
            "either": nullable,
            "many": {"type": "array", "items": {"type": "number"}},
            "by_name": {"type": "object", "additionalProperties": {"type": "boolean"}},
            "day": {"type": "string", "format": "date"},
            "bounded": {"type": "integer", "minimum": 0, "maximum": 9},
        }

    def test_enums_dataclasses_and_models_are_definitions_without_generated_titles(self) -> None:
        def book(booking: Booking, unit: Unit = Unit.CELSIUS) -> None: ...

        parameters = FunctionTool.of(book).tool.function.parameters
        unit = parameters["properties"]["unit"]
        assert unit["default"] == "celsius"
        assert "#/$defs/Unit" in json.dumps(unit)  # older versions of pydantic wrap the reference
        assert parameters["$defs"]["Booking"]["properties"]["title"] == {"type": "string"}
        assert parameters["$defs"]["Place"]["required"] == ["city"]
        assert parameters["$defs"]["Unit"] == {"type": "string", "enum": ["celsius", "fahrenheit"]}

    def test_descriptions_of_annotated_hints_go_before_the_docstrings(self) -> None:
        def f(
            a: Annotated[int, Field(description="by field")],
            b: Annotated[int, "by text"],
            c: Annotated[int, Field(ge=0)],
            d: int = Field(3, description="by default"),
        ) -> None:
            """F.

            :param a: by docstring
            :param b: by docstring
            :param c: by docstring
            :param d: by docstring
            """

        texts = {name: schema["description"] for name, schema in properties_of(f).items()}
        assert texts == {"a": "by field", "b": "by text", "c": "by docstring", "d": "by default"}

    def test_parameters_may_have_names_that_a_pydantic_field_may_not(self) -> None:
        def f(schema: int, copy: int, _private: int, model_config: int) -> None: ...

        assert list(properties_of(f)) == ["schema", "copy", "_private", "model_config"]

    def test_a_default_that_json_cannot_say_is_left_out(self) -> None:
        nothing = object()

        def f(x: Any = nothing) -> None: ...

        tool = FunctionTool.of(f)
        assert tool.tool.function.parameters["properties"] == {"x": {}}
        assert tool.bind("{}") == {}

    def test_methods_partials_and_callable_objects_are_tools(self) -> None:
        class Counter:
            """Counts."""

            def add(self, n: int) -> int:
                """Add a number."""
                return n

            def __call__(self, n: int) -> int:
                return n

        method = FunctionTool.of(Counter().add).tool.function
        assert (method.name, method.description) == ("add", "Add a number.")
        assert list(method.parameters["properties"]) == ["n"]
        assert FunctionTool.of(Counter()).name == "Counter"
        partial = functools.partial(Counter().add, n=2)
        assert FunctionTool.of(partial).tool.function.parameters["properties"] == {
            "n": {"type": "integer", "default": 2}
        }

    def test_a_function_that_cannot_be_a_tool_is_refused_by_name(self) -> None:
        def positional(a: int, /) -> None: ...
        def many(*numbers: int) -> None: ...
        def any_name(**numbers: int) -> None: ...
        def unsayable(callback: Callable[[int], int]) -> None: ...
        def foreign(lock: threading.Event) -> None: ...

        cases: list[tuple[Callable[..., Any], str]] = [
            (positional, "'a' is positional-only"),
            (many, "'numbers' takes any number of arguments"),
            (any_name, "'numbers' takes arguments of any name"),
            (unsayable, "'unsayable' cannot be a tool: a parameter's type has no JSON Schema"),
            (foreign, "'foreign' cannot be a tool"),
        ]
        for function, reason in cases:
            with pytest.raises(ConfigError, match=reason):
                FunctionTool.of(function)

    def test_hints_that_name_nothing_are_refused(self) -> None:
        def f(x: int) -> None: ...

        f.__annotations__["x"] = "Nowhere"
        with pytest.raises(ConfigError, match=r"type hints cannot be read .*Nowhere"):
            FunctionTool.of(f)


class TestArguments:
    def test_values_have_the_types_that_the_function_asks_for(self) -> None:
        def f(booking: Booking, unit: Unit, day: datetime.date, n: int) -> None: ...

        bound = FunctionTool.of(f).bind(
            '{"booking": {"title": "t", "place": {"city": "Beijing"}}, "unit": "celsius",'
            ' "day": "2026-01-02", "n": "7"}'
        )
        assert bound == {
            "booking": Booking(title="t", place=Place("Beijing")),
            "unit": Unit.CELSIUS,
            "day": datetime.date(2026, 1, 2),
            "n": 7,
        }
        assert isinstance(bound["booking"].place, Place)

    def test_what_the_call_leaves_out_is_left_to_the_functions_default(self) -> None:
        def f(a: int = 1, b: int = 2) -> None: ...

        assert FunctionTool.of(f).bind('{"b": 3}') == {"b": 3}
        assert FunctionTool.of(f).bind("") == {}

    def test_a_default_that_is_a_pydantic_field_is_filled_in(self) -> None:
        def f(a: int = Field(1), b: list[int] = Field(default_factory=list)) -> None: ...  # noqa: B008

        assert FunctionTool.of(f).bind("{}") == {"a": 1, "b": []}

    @pytest.mark.parametrize(
        ("arguments", "problem"),
        [
            ("{}", "city: field required"),
            ('{"city": 3}', "city: input should be a valid string"),
            ('{"city": "x", "town": "y"}', "town: extra inputs are not permitted"),
            ('{"city": "x", "unit": "kelvin"}', "unit: input should be 'celsius'"),
            ('{"city": ', "invalid JSON"),
            ('["x"]', "input should be an object"),
            ("[" * 100_000, "invalid JSON"),
        ],
    )
    def test_wrong_arguments_are_named(self, arguments: str, problem: str) -> None:
        def get_weather(city: str, unit: Unit = Unit.CELSIUS) -> None: ...

        with pytest.raises(
            SerializationError, match="the arguments of get_weather are wrong: "
        ) as e:
            FunctionTool.of(get_weather).bind(arguments)
        assert problem in e.value.message
        assert e.value.content == arguments

    def test_whether_a_call_must_be_awaited_is_known(self) -> None:
        async def later() -> None: ...
        def now() -> None: ...

        class Later:
            async def __call__(self) -> None: ...

        assert FunctionTool.of(later).is_async
        assert FunctionTool.of(functools.partial(later)).is_async
        assert FunctionTool.of(Later()).is_async
        assert not FunctionTool.of(now).is_async


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("as it is", "as it is"),
        (None, "null"),
        (3.5, "3.5"),
        ({"city": "北京"}, '{"city":"北京"}'),
        (Place("Beijing"), '{"city":"Beijing","country":"China"}'),
        (
            Booking(title="t", place=Place("x")),
            '{"title":"t","place":{"city":"x","country":"China"}}',
        ),
        ([datetime.date(2026, 1, 2), Unit.CELSIUS], '["2026-01-02","celsius"]'),
        (range(2).__iter__, None),
    ],
)
def test_results_are_told_as_text_or_json(value: Any, text: str | None) -> None:
    assert result_text(value) == (str(value) if text is None else text)

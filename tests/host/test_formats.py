"""Answers of a certain form: asked for by type or schema, returned as values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

import pytest
from pydantic import BaseModel, Field, TypeAdapter
from typing_extensions import TypedDict

from mofa_gguf.contract import (
    ChatMessage,
    ConfigError,
    Other,
    ResponseFormat,
    SerializationError,
    ToolCall,
)
from mofa_gguf.contract.responses import ChatCompletionResponse, Choice, FinishReason
from mofa_gguf.host import AsyncLLMClient, LLMClient
from mofa_gguf.host.formats import read_answer
from mofa_gguf.host.testing import Reply, ScriptedProvider

T = TypeVar("T")


class City(BaseModel):
    name: str
    people: int = Field(ge=0)


class Box(BaseModel, Generic[T]):
    content: T


@dataclass
class Point:
    x: int
    y: int


class Pair(TypedDict):
    first: str
    second: str


SCHEMA = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}


def parse(form: Any, reply: Reply, **options: Any) -> tuple[Any, ResponseFormat | None]:
    """What comes back, and what the provider was asked for."""
    provider = ScriptedProvider([reply])
    with LLMClient(provider) as client:
        value = client.parse("Which city?", form, **options)
    return value, provider.requests[0].response_format


def test_a_pydantic_model_is_sent_as_its_schema_and_comes_back_as_an_instance() -> None:
    city, sent = parse(City, '{"name": "Beijing", "people": 22000000}')
    assert city == City(name="Beijing", people=22000000)
    assert sent == ResponseFormat.json_schema(
        {
            "name": "City",
            "schema": {
                "type": "object",
                "properties": {
                    "name": {"type": "string"},
                    "people": {"type": "integer", "minimum": 0},
                },
                "required": ["name", "people"],
                "additionalProperties": False,
            },
        }
    )


@pytest.mark.parametrize(
    ("form", "answer", "value", "name"),
    [
        (Point, '{"x": 1, "y": 2}', Point(1, 2), "Point"),
        (Pair, '{"first": "a", "second": "b"}', {"first": "a", "second": "b"}, "Pair"),
        (list[int], "[1, 2]", [1, 2], "list_int"),
        (Literal["a", "b"], '"a"', "a", "typing_Literal_a_b"),
        (Box[int], '{"content": 3}', Box[int](content=3), "Box_int"),
        (int | None, "null", None, "int_None"),
        (TypeAdapter(list[Point]), '[{"x": 1, "y": 2}]', [Point(1, 2)], None),
    ],
)
def test_any_type_that_pydantic_knows_will_do(
    form: Any, answer: str, value: Any, name: str | None
) -> None:
    parsed, sent = parse(form, answer)
    assert parsed == value
    assert sent is not None
    spec = sent.schema_spec()
    assert spec is not None
    assert name is None or spec.name == name


def test_objects_are_closed_unless_their_type_is_open() -> None:
    class Open(BaseModel, extra="allow"):
        inner: City
        numbers: dict[str, int]

    _, sent = parse(Open, '{"inner": {"name": "x", "people": 1}, "numbers": {}}')
    assert sent is not None
    schema = sent.json_schema["schema"]
    assert schema["additionalProperties"] is True
    assert schema["properties"]["numbers"]["additionalProperties"] == {"type": "integer"}
    assert schema["$defs"]["City"]["additionalProperties"] is False


@pytest.mark.parametrize(
    ("form", "sent"),
    [
        (SCHEMA, ResponseFormat.json_schema(SCHEMA)),
        ({"type": "json_object"}, ResponseFormat.json()),
        (ResponseFormat.json(), ResponseFormat.json()),
        (ResponseFormat.json_schema(SCHEMA), ResponseFormat.json_schema(SCHEMA)),
    ],
)
def test_for_schemas_and_formats_the_decoded_json_comes_back(
    form: Any, sent: ResponseFormat
) -> None:
    assert parse(form, '{"name": "Beijing"}') == ({"name": "Beijing"}, sent)


def test_a_fence_around_the_json_is_taken_off() -> None:
    assert parse(Point, '```json\n{"x": 1, "y": 2}\n```')[0] == Point(1, 2)
    assert parse(SCHEMA, "  ```\n{}\n```\n")[0] == {}


@pytest.mark.parametrize(
    ("form", "answer", "problem"),
    [
        (City, "Beijing", "the answer is no City: invalid JSON"),
        (City, "", "the answer is no City: invalid JSON"),
        (City, '{"name": "Beijing"}', "the answer is no City: people: field required"),
        (SCHEMA, '{"name": ', "the answer is no JSON: not valid JSON"),
        (SCHEMA, "[" * 100_000, "the answer is no JSON: not valid JSON"),
    ],
)
def test_an_answer_of_another_form_is_a_serialization_error_with_it(
    form: Any, answer: str, problem: str
) -> None:
    with pytest.raises(SerializationError) as caught:
        parse(form, answer)
    assert problem in caught.value.message
    assert caught.value.content == answer


def test_an_answer_that_was_cut_off_says_so() -> None:
    choice = Choice(message=ChatMessage.assistant('{"na'), finish_reason=FinishReason.LENGTH)
    response = ChatCompletionResponse(id="x", created=0, model="m", choices=[choice])
    with pytest.raises(SerializationError, match="it was cut off: allow more with max_tokens"):
        read_answer(response, City)


def test_a_call_instead_of_an_answer_is_an_error() -> None:
    call = ChatMessage.assistant_with_tool_calls([ToolCall.new("a", "search")])
    with pytest.raises(Other, match="the model calls search"):
        parse(City, call)


def test_a_type_without_a_schema_is_refused_before_anything_is_asked() -> None:
    provider = ScriptedProvider()
    with LLMClient(provider) as client:
        with pytest.raises(ConfigError, match="ScriptedProvider cannot be a response_format"):
            client.parse("?", ScriptedProvider)
        with pytest.raises(ConfigError) as caught:
            client.parse("?", "json")
    assert caught.value.field == "response_format"
    assert provider.requests == []


def test_every_question_takes_a_type_as_its_format() -> None:
    provider = ScriptedProvider(["{}"] * 3)
    with LLMClient(provider) as client:
        assert client.ask("?", response_format=City) == "{}"
        list(client.ask_stream("?", response_format=City))
        client.run("?", response_format=SCHEMA)
    sent = [request.response_format for request in provider.requests]
    assert [f.format_type for f in sent if f is not None] == ["json_schema"] * 3


async def test_the_asynchronous_client_parses_too() -> None:
    client = AsyncLLMClient(ScriptedProvider(['{"x": 1, "y": 2}']))
    point: Point = await client.parse("?", Point)
    assert point == Point(1, 2)

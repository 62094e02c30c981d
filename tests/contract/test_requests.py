"""Requests: MoFA's JSON, the flattened extra keys, tool choice and response format traps."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from mofa_gguf.contract import (
    ChatCompletionRequest,
    ChatMessage,
    ConfigError,
    JsonSchemaSpec,
    ResponseFormat,
    SerializationError,
    SpecificToolChoice,
    Tool,
    ToolChoice,
    normalize_schema,
)

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"n": {"type": ["integer", "null"], "default": None}},
    "required": ["n"],
}

MOFA_REQUEST: dict[str, Any] = {
    "model": "tiny",
    "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}],
    "temperature": 0.7,
    "top_p": 0.9,
    "max_tokens": 256,
    "stop": ["END"],
    "stream": True,
    "tools": [
        {
            "type": "function",
            "function": {
                "name": "weather",
                "description": "The weather of a city",
                "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
                "strict": True,
            },
        }
    ],
    "tool_choice": {"type": "function", "function": {"name": "weather"}},
    "frequency_penalty": 0.1,
    "presence_penalty": -0.1,
    "user": "ada",
    "response_format": {"type": "json_schema", "json_schema": SCHEMA},
    "top_k": 40,
    "logit_bias": {"17": -100},
    "nothing": None,
}


def request_with(**keys: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [], **keys}


def test_a_request_in_mofas_shape_is_written_as_it_was_read() -> None:
    request = ChatCompletionRequest.from_json(json.dumps(MOFA_REQUEST))
    assert json.loads(request.to_json()) == MOFA_REQUEST
    assert request.extra == {"top_k": 40, "logit_bias": {"17": -100}, "nothing": None}


def test_the_smallest_request_has_model_and_messages_only() -> None:
    assert ChatCompletionRequest.new("m").to_dict() == {"model": "m", "messages": []}


def test_nulls_inside_free_form_values_stay() -> None:
    request = ChatCompletionRequest.from_dict(MOFA_REQUEST)
    written = request.to_dict()["response_format"]["json_schema"]
    assert written["properties"]["n"]["default"] is None


def test_a_json_key_named_extra_is_one_more_unknown_key_as_in_serde() -> None:
    data = request_with(extra={"a": 1}, top_k=1)
    request = ChatCompletionRequest.from_dict(data)
    assert request.extra == {"extra": {"a": 1}, "top_k": 1}
    assert request.to_dict() == data


def test_in_python_unknown_keywords_and_the_extra_map_say_the_same() -> None:
    by_keyword = ChatCompletionRequest(model="m", top_k=3)  # type: ignore[call-arg]
    by_map = ChatCompletionRequest(model="m", extra={"top_k": 3})
    assert by_keyword == by_map


@pytest.mark.parametrize(
    ("extra", "keyword", "problem"),
    [
        ({"temperature": 1}, {}, "'temperature' is a field of ChatCompletionRequest"),
        ({"top_k": 1}, {"top_k": 2}, "'top_k' is given twice"),
    ],
)
def test_extra_cannot_hide_a_field_or_contradict_a_keyword(
    extra: dict[str, Any], keyword: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ValidationError, match=problem):
        ChatCompletionRequest(extra=extra, **keyword)


def test_a_field_wins_over_an_extra_key_put_there_later() -> None:
    request = ChatCompletionRequest(model="m", temperature=0.5)
    request.extra["temperature"] = 2
    assert request.to_dict()["temperature"] == 0.5


@pytest.mark.parametrize(
    ("given", "read", "written"),
    [
        (None, ToolChoice.AUTO, None),
        ("auto", ToolChoice.AUTO, None),
        ("none", ToolChoice.NONE, "none"),
        ("required", ToolChoice.REQUIRED, "required"),
        (
            {"type": "function", "function": {"name": "f"}},
            ToolChoice.specific("f"),
            {"type": "function", "function": {"name": "f"}},
        ),
    ],
)
def test_every_spelling_of_tool_choice_is_read_and_none_loses_its_meaning(
    given: Any, read: ToolChoice | SpecificToolChoice, written: Any
) -> None:
    request = ChatCompletionRequest.from_json(json.dumps(request_with(tool_choice=given)))
    assert request.tool_choice == read
    assert request.to_dict() == request_with(tool_choice=written)
    assert ChatCompletionRequest.from_json(request.to_json()) == request


def test_a_request_without_tool_choice_has_none_and_writes_none() -> None:
    request = ChatCompletionRequest.from_dict(request_with())
    assert request.tool_choice is None
    assert "tool_choice" not in request.to_dict()


@pytest.mark.parametrize(
    ("choice", "problem"),
    [
        ("any", "tool_choice: input should be 'auto', 'none' or 'required'"),
        ({"type": "function"}, "tool_choice.function: field required"),
    ],
)
def test_an_unknown_tool_choice_is_answered_with_the_known_ones(choice: Any, problem: str) -> None:
    with pytest.raises(SerializationError) as caught:
        ChatCompletionRequest.from_dict(request_with(tool_choice=choice))
    assert problem in caught.value.message


@pytest.mark.parametrize(
    ("held", "spec"),
    [
        (SCHEMA, JsonSchemaSpec(SCHEMA)),
        ({"name": "n", "schema": SCHEMA}, JsonSchemaSpec(SCHEMA, name="n")),
        (
            {"name": "n", "schema": SCHEMA, "strict": True, "description": "d"},
            JsonSchemaSpec(SCHEMA, name="n", strict=True),
        ),
        ({"schema": SCHEMA}, JsonSchemaSpec(SCHEMA)),
        ({"name": "n"}, JsonSchemaSpec({}, name="n")),
        ({}, JsonSchemaSpec({})),
        (True, JsonSchemaSpec(True)),
        ({"description": "anything"}, JsonSchemaSpec({"description": "anything"})),
        # A bare schema of an object that happens to have these property names is no wrapper.
        (
            {"type": "object", "properties": {"name": {}, "schema": {}}},
            JsonSchemaSpec({"type": "object", "properties": {"name": {}, "schema": {}}}),
        ),
    ],
)
def test_a_schema_is_found_bare_and_wrapped(held: Any, spec: JsonSchemaSpec) -> None:
    data = request_with(response_format={"type": "json_schema", "json_schema": held})
    request = ChatCompletionRequest.from_json(json.dumps(data))
    assert request.response_format is not None
    assert request.response_format.schema_spec() == spec
    assert request.to_dict() == data


@pytest.mark.parametrize(
    ("held", "field"),
    [
        (None, "response_format.json_schema"),
        ("object", "response_format.json_schema"),
        ({"name": "n", "schema": "object"}, "response_format.json_schema.schema"),
    ],
)
def test_a_format_without_a_schema_names_the_field(held: Any, field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ResponseFormat.json_schema(held).schema_spec()
    assert caught.value.field == field


def test_the_response_format_constructors_make_what_mofas_make() -> None:
    assert ResponseFormat.text().to_dict() == {"type": "text"}
    assert ResponseFormat.json().to_dict() == {"type": "json_object"}
    made = ResponseFormat.json_schema(SCHEMA)
    assert made.to_dict() == {"type": "json_schema", "json_schema": SCHEMA}
    assert made.json_schema == SCHEMA
    assert made.format_type == "json_schema"
    assert ResponseFormat.json().schema_spec() is None


def test_tool_function_is_the_constructor_on_the_class_and_the_definition_on_a_tool() -> None:
    tool = Tool.function("weather", "The weather", {"required": ["city"]})
    assert tool.to_dict() == {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "The weather",
            "parameters": {"required": ["city"], "type": "object", "properties": {}},
        },
    }
    assert tool.function.name == "weather"
    assert tool.tool_type == "function"
    assert Tool.from_json(tool.to_json()) == tool


@pytest.mark.parametrize(
    ("given", "normal"),
    [
        (None, {"type": "object", "properties": {}}),
        ([1], {"type": "object", "properties": {}}),
        ({}, {"type": "object", "properties": {}}),
        ({"type": "string"}, {"type": "string", "properties": {}}),
        (
            {"properties": {"a": {"type": "integer"}}},
            {"type": "object", "properties": {"a": {"type": "integer"}}},
        ),
    ],
)
def test_schemas_are_normalised_as_mofa_does_and_the_given_one_is_untouched(
    given: Any, normal: dict[str, Any]
) -> None:
    before = json.dumps(given)
    assert normalize_schema(given) == normal
    assert json.dumps(given) == before


def test_builders_return_copies_so_a_beginning_can_be_shared() -> None:
    start = ChatCompletionRequest.new("m").system("s")
    tool = Tool.function("f", "d")
    full = (
        start.user_message("u")
        .message(ChatMessage.assistant("a"))
        .with_temperature(0)
        .with_max_tokens(5)
        .tool(tool)
        .tool(tool)
        .with_stream()
    )
    assert start.to_dict() == {"model": "m", "messages": [{"role": "system", "content": "s"}]}
    assert [m.role.value for m in full.messages] == ["system", "user", "assistant"]
    assert (full.temperature, full.max_tokens, full.stream) == (0, 5, True)
    assert full.tools == [tool, tool]
    assert full.with_tools([tool]).tools == [tool]


def test_with_options_replaces_fields_and_adds_extra_keys() -> None:
    request = ChatCompletionRequest(model="m", temperature=1, extra={"top_k": 1, "seed": 2})
    changed = request.with_options({"temperature": 0, "top_k": 5, "tool_choice": "none"})
    assert changed.temperature == 0
    assert changed.extra == {"top_k": 5, "seed": 2}
    assert changed.tool_choice is ToolChoice.NONE
    assert request.extra == {"top_k": 1, "seed": 2}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("max_tokens", -1),
        ("max_tokens", 2**32),
        ("max_tokens", 1.5),
        ("max_tokens", True),
        ("max_tokens", "5"),
        ("temperature", "0.5"),
        ("temperature", float("inf")),
        ("stream", "yes"),
        ("stop", [1]),
        ("model", 3),
        ("messages", "hi"),
    ],
)
def test_a_value_rust_could_not_hold_is_refused_by_name(key: str, value: Any) -> None:
    with pytest.raises(SerializationError, match=f"ChatCompletionRequest: {key}"):
        ChatCompletionRequest.from_dict(request_with(**{key: value}))


def test_one_stop_string_is_read_as_a_list_of_one() -> None:
    assert ChatCompletionRequest.from_dict(request_with(stop="END")).stop == ["END"]


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null", "[" * 100_000])
def test_text_that_is_no_request_is_a_serialization_error_that_carries_the_text(text: str) -> None:
    with pytest.raises(SerializationError, match="this is no ChatCompletionRequest") as caught:
        ChatCompletionRequest.from_json(text)
    assert caught.value.content == text


def test_a_tool_does_not_follow_later_changes_of_the_schema_it_was_made_from() -> None:
    schema: dict[str, Any] = {"properties": {"a": {}}}
    tool = Tool.function("f", "d", schema)
    schema["extra"] = {}
    assert tool.function.parameters == {"type": "object", "properties": {"a": {}}}

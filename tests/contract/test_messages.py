"""Messages and content parts: MoFA's JSON, OpenAI's tagged parts, the constructors."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mofa_gguf.contract import (
    AudioData,
    AudioPart,
    ChatMessage,
    ContentPart,
    FunctionCall,
    ImageDetail,
    ImagePart,
    ImageUrl,
    Role,
    SerializationError,
    TextPart,
    ToolCall,
    VideoData,
    VideoPart,
)

MOFA_MESSAGES: list[dict[str, Any]] = [
    {"role": "system", "content": "You are brief."},
    {"role": "user", "content": "Grüße, 你好 👋"},
    {"role": "user", "content": "hi", "name": "ada"},
    {"role": "assistant", "content": "Hello."},
    {
        "role": "assistant",
        "tool_calls": [
            {
                "id": "call_1",
                "type": "function",
                "function": {"name": "weather", "arguments": '{"city":"Oslo"}'},
            }
        ],
    },
    {"role": "tool", "content": "4 degrees", "tool_call_id": "call_1"},
    {
        "role": "user",
        "content": [
            {"text": "what is this?"},
            {"image_url": {"url": "https://example.org/a.png", "detail": "low"}},
            {"image_url": {"url": "data:image/png;base64,AAAA"}},
            {"audio": {"data": "AAAA", "format": "wav"}},
            {"video": {"data": "BBBB", "format": "mp4"}},
        ],
    },
    {"role": "user", "content": []},
    {"role": "user", "content": ""},
]


@pytest.mark.parametrize("data", MOFA_MESSAGES, ids=lambda data: json.dumps(data)[:40])
def test_a_message_in_mofas_shape_is_written_as_it_was_read(data: dict[str, Any]) -> None:
    message = ChatMessage.from_json(json.dumps(data))
    assert json.loads(message.to_json()) == data
    assert message.to_dict() == data


def test_none_is_left_out_and_the_role_defaults_to_user() -> None:
    assert ChatMessage().to_dict() == {"role": "user"}


def test_null_fields_are_read_as_absent_ones() -> None:
    data = {"role": "assistant", "content": None, "name": None, "tool_calls": None}
    assert ChatMessage.from_dict(data).to_dict() == {"role": "assistant"}


def test_keys_that_a_message_does_not_know_are_skipped_as_serde_skips_them() -> None:
    message = ChatMessage.from_json('{"role": "assistant", "content": "a", "refusal": null}')
    assert message.to_dict() == {"role": "assistant", "content": "a"}


def test_plain_dumps_have_mofas_shape_whatever_their_flags_say() -> None:
    message = ChatMessage.assistant_with_tool_calls([ToolCall.new("1", "f")])
    expected = {
        "role": "assistant",
        "tool_calls": [
            {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
        ],
    }
    assert message.model_dump(mode="json") == expected
    assert message.model_dump(mode="json", by_alias=True, exclude_none=True) == expected
    assert json.loads(message.model_dump_json()) == expected


def test_reasoning_is_an_extra_attribute_beside_the_content() -> None:
    message = ChatMessage(role=Role.ASSISTANT, content="4", reasoning_content="2 and 2")
    assert message.to_dict()["reasoning_content"] == "2 and 2"
    assert "reasoning_content" not in ChatMessage.assistant("4").to_dict()
    assert ChatMessage.from_json(message.to_json()) == message


@pytest.mark.parametrize(
    ("tagged", "untagged"),
    [
        ({"type": "text", "text": "a"}, {"text": "a"}),
        (
            {"type": "image_url", "image_url": {"url": "u", "detail": "auto"}},
            {"image_url": {"url": "u", "detail": "auto"}},
        ),
        ({"type": "image_url", "image_url": "u"}, {"image_url": {"url": "u"}}),
        (
            {"type": "input_audio", "input_audio": {"data": "d", "format": "mp3"}},
            {"audio": {"data": "d", "format": "mp3"}},
        ),
        ({"type": "text", "text": "a", "image_url": None}, {"text": "a"}),
    ],
)
def test_openais_tagged_parts_are_read_and_written_without_the_tag(
    tagged: dict[str, Any], untagged: dict[str, Any]
) -> None:
    message = ChatMessage.from_dict({"role": "user", "content": [tagged]})
    assert message.to_dict()["content"] == [untagged]


def test_untagged_parts_become_the_class_of_their_key() -> None:
    message = ChatMessage.from_dict(MOFA_MESSAGES[6])
    assert message.content == [
        TextPart(text="what is this?"),
        ImagePart(image_url=ImageUrl(url="https://example.org/a.png", detail=ImageDetail.LOW)),
        ImagePart(image_url=ImageUrl(url="data:image/png;base64,AAAA")),
        AudioPart(audio=AudioData(data="AAAA", format="wav")),
        VideoPart(video=VideoData(data="BBBB", format="mp4")),
    ]


def test_text_comes_before_other_keys_of_a_part_as_in_serdes_untagged_order() -> None:
    message = ChatMessage.from_dict({"content": [{"image_url": {"url": "u"}, "text": "a"}]})
    assert message.content == [TextPart(text="a")]


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ({"role": "bot"}, "role: input should be 'system', 'user', 'assistant' or 'tool'"),
        ({"content": 3}, "content: a message's content is text or a list of content parts"),
        ({"content": [{"sound": 1}]}, "content.0: a content part has one of the keys text, "),
        ({"content": [{"text": 1}]}, "content.0.text: input should be a valid string"),
        ({"tool_calls": [{"id": "1"}]}, "tool_calls.0.function: field required"),
    ],
)
def test_a_wrong_message_is_answered_with_where_and_what(
    data: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(SerializationError, match="this is no ChatMessage") as caught:
        ChatMessage.from_dict(data)
    assert sentence in caught.value.message


def test_the_constructors_make_what_mofas_make() -> None:
    call = ToolCall.new("c", "f", {"x": 1})
    made = [
        ChatMessage.system("s"),
        ChatMessage.user("u"),
        ChatMessage.user_with_content("u"),
        ChatMessage.user_with_parts([TextPart(text="u")]),
        ChatMessage.assistant("a"),
        ChatMessage.assistant_with_tool_calls([call]),
        ChatMessage.tool_result("c", "r"),
        ChatMessage.user_with_image("t", "u"),
        ChatMessage.user_with_audio("t", "d", "wav"),
        ChatMessage.user_with_video("t", "d", "mp4"),
    ]
    call_json = {
        "id": "c",
        "type": "function",
        "function": {"name": "f", "arguments": '{"x": 1}'},
    }
    assert [message.to_dict() for message in made] == [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "u"},
        {"role": "user", "content": "u"},
        {"role": "user", "content": [{"text": "u"}]},
        {"role": "assistant", "content": "a"},
        {"role": "assistant", "tool_calls": [call_json]},
        {"role": "tool", "content": "r", "tool_call_id": "c"},
        {"role": "user", "content": [{"text": "t"}, {"image_url": {"url": "u"}}]},
        {"role": "user", "content": [{"text": "t"}, {"audio": {"data": "d", "format": "wav"}}]},
        {"role": "user", "content": [{"text": "t"}, {"video": {"data": "d", "format": "mp4"}}]},
    ]


def test_text_content_is_the_first_text_part_only() -> None:
    parts: list[ContentPart] = [
        ImagePart(image_url=ImageUrl(url="u")),
        TextPart(text="a"),
        TextPart(text="b"),
    ]
    assert ChatMessage.user_with_parts(parts).text_content() == "a"
    assert ChatMessage.user_with_parts(parts[:1]).text_content() is None
    assert ChatMessage.assistant_with_tool_calls([]).text_content() is None
    assert ChatMessage.user("x").text_content() == "x"


def test_call_type_is_the_json_key_type() -> None:
    call = ToolCall(id="1", call_type="function", function=FunctionCall(name="f", arguments="{}"))
    assert call.call_type == "function"
    assert call.to_dict()["type"] == "function"
    assert ToolCall.from_dict(
        {"id": "1", "type": "custom", "function": call.function}
    ).call_type == ("custom")


def test_arguments_given_as_an_object_are_written_as_json_text() -> None:
    call = FunctionCall.from_dict({"name": "f", "arguments": {"city": "Köln"}})
    assert call.arguments == '{"city": "Köln"}'
    assert call.parse_arguments() == {"city": "Köln"}


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [('{"a": ', "not valid JSON"), ("[1]", "are \\[1\\], not a JSON object"), ("3", "are 3, not")],
)
def test_arguments_that_are_no_object_are_refused_with_the_functions_name(
    arguments: str, problem: str
) -> None:
    call = FunctionCall(name="weather", arguments=arguments)
    with pytest.raises(SerializationError, match=problem) as caught:
        call.parse_arguments()
    assert caught.value.content == arguments
    assert "'weather'" in caught.value.message


def test_no_arguments_are_an_empty_object() -> None:
    assert FunctionCall(name="f", arguments=" ").parse_arguments() == {}


def test_roles_print_as_their_json() -> None:
    assert f"{Role.USER} {ImageDetail.HIGH}" == "user high"

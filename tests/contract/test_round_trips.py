"""Laws of the JSON: what is written is read as the same value, and is what MoFA may read."""

from __future__ import annotations

import json
import string
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from mofa_gguf.contract import (
    AudioData,
    AudioPart,
    ChatCompletionRequest,
    ChatMessage,
    ContentPart,
    FunctionCall,
    FunctionDefinition,
    ImageDetail,
    ImagePart,
    ImageUrl,
    LLMError,
    ResponseFormat,
    Role,
    TextPart,
    Tool,
    ToolCall,
    ToolChoice,
    VideoData,
    VideoPart,
)

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
f32 = st.floats(allow_nan=False, allow_infinity=False, width=32)
u32 = st.integers(0, 2**32 - 1)
json_value = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | f32 | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=6,
)

parts: st.SearchStrategy[ContentPart] = st.one_of(
    st.builds(TextPart, text=text),
    st.builds(
        ImagePart,
        image_url=st.builds(ImageUrl, url=text, detail=st.none() | st.sampled_from(ImageDetail)),
    ),
    st.builds(AudioPart, audio=st.builds(AudioData, data=text, format=text)),
    st.builds(VideoPart, video=st.builds(VideoData, data=text, format=text)),
)
calls = st.builds(
    ToolCall,
    id=text,
    call_type=text,
    function=st.builds(FunctionCall, name=text, arguments=text),
)
messages = st.builds(
    ChatMessage,
    role=st.sampled_from(Role),
    content=st.none() | text | st.lists(parts, max_size=3),
    name=st.none() | text,
    tool_calls=st.none() | st.lists(calls, max_size=2),
    tool_call_id=st.none() | text,
    reasoning_content=st.none() | text,
)
tools = st.builds(
    Tool,
    tool_type=text,
    function=st.builds(
        FunctionDefinition,
        name=text,
        description=st.none() | text,
        parameters=json_value,
        strict=st.none() | st.booleans(),
    ),
)
extra_keys = st.text(string.ascii_letters + "_é", min_size=1, max_size=6).filter(
    lambda key: key not in ChatCompletionRequest.model_fields
)
requests = st.fixed_dictionaries(
    {"model": text, "messages": st.lists(messages, max_size=3)},
    optional={
        "temperature": f32,
        "top_p": f32,
        "max_tokens": u32,
        "stop": st.lists(text, max_size=2),
        "stream": st.booleans(),
        "tools": st.lists(tools, max_size=2),
        "tool_choice": st.sampled_from(ToolChoice) | st.builds(ToolChoice.specific, text),
        "frequency_penalty": f32,
        "presence_penalty": f32,
        "user": text,
        "response_format": st.sampled_from([ResponseFormat.text(), ResponseFormat.json()])
        | st.builds(ResponseFormat.json_schema, json_value),
        "extra": st.dictionaries(extra_keys | st.just("extra"), json_value, max_size=3),
    },
).map(lambda fields: ChatCompletionRequest.model_validate(fields))


@settings(max_examples=150, deadline=None)
@given(requests)
def test_a_request_survives_the_wire(request: ChatCompletionRequest) -> None:
    again = ChatCompletionRequest.from_json(request.to_json())
    assert again == request
    assert again.to_json() == request.to_json()


@settings(max_examples=150, deadline=None)
@given(requests)
def test_a_written_request_has_no_null_of_its_own_but_auto(request: ChatCompletionRequest) -> None:
    written = request.to_dict()
    own = {key: value for key, value in written.items() if key not in request.extra}
    nulls = [key for key, value in own.items() if value is None]
    assert nulls == (["tool_choice"] if request.tool_choice is ToolChoice.AUTO else [])
    assert all(None not in message.values() for message in own["messages"])


@settings(max_examples=150, deadline=None)
@given(messages)
def test_a_message_survives_the_wire(message: ChatMessage) -> None:
    assert ChatMessage.from_json(message.to_json()) == message


@settings(max_examples=200, deadline=None)
@given(json_value)
def test_any_json_is_a_request_or_a_contract_error_never_another_failure(value: Any) -> None:
    try:
        request = ChatCompletionRequest.from_json(json.dumps(value))
    except LLMError as error:
        assert "\n" not in error.message
    else:
        assert isinstance(value, dict)
        assert set(request.extra) <= set(value)

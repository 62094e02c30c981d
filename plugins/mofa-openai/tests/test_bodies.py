"""What is posted: the contract's requests in OpenAI's shape."""

from __future__ import annotations

from typing import Any

import pytest
from mofa_openai import OpenAIConfig, OpenAIProvider
from mofa_openai.bodies import chat_body
from scripted_server import Reply, ScriptedServer, whole

from mofa_gguf import (
    ChatCompletionRequest,
    ChatMessage,
    EmbeddingRequest,
    ProviderNotSupported,
    ResponseFormat,
    Tool,
    ToolCall,
    ToolChoice,
)

CONFIG = OpenAIConfig(base_url="http://localhost:1/v1", model="small")
TOOL = Tool.function("f", "does f", {})
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}}


def body(request: ChatCompletionRequest, **options: Any) -> dict[str, Any]:
    return chat_body(request, "small", CONFIG.model_copy(update=options))


def test_a_plain_request_says_no_more_than_it_must() -> None:
    assert body(ChatCompletionRequest.new().system("Be brief.").user_message("Hi")) == {
        "model": "small",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hi"},
        ],
    }


def test_content_parts_get_their_types() -> None:
    message = ChatMessage.user_with_image("What is this?", "data:image/png;base64,AA==")
    assert body(ChatCompletionRequest.new().message(message))["messages"][0]["content"] == [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
    ]
    sound = ChatMessage.user_with_audio("And this?", "AA==", "wav")
    assert body(ChatCompletionRequest.new().message(sound))["messages"][0]["content"][1] == {
        "type": "input_audio",
        "input_audio": {"data": "AA==", "format": "wav"},
    }


def test_what_the_api_or_the_model_cannot_take_is_refused_before_it_is_sent() -> None:
    video = ChatMessage.user_with_video("And this?", "AA==", "mp4")
    with pytest.raises(ProviderNotSupported, match="video"):
        body(ChatCompletionRequest.new().message(video))
    image = ChatMessage.user_with_image("What is this?", "http://example.org/a.png")
    with pytest.raises(ProviderNotSupported, match="without vision"):
        body(ChatCompletionRequest.new().message(image), vision=False)


@pytest.mark.parametrize(
    ("choice", "written"),
    [
        (ToolChoice.AUTO, "auto"),
        (ToolChoice.NONE, "none"),
        (ToolChoice.REQUIRED, "required"),
        (ToolChoice.specific("f"), {"type": "function", "function": {"name": "f"}}),
    ],
)
def test_a_tool_choice_is_never_null(choice: Any, written: Any) -> None:
    request = ChatCompletionRequest(tools=[TOOL], tool_choice=choice)
    assert body(request)["tool_choice"] == written
    assert "tool_choice" not in body(ChatCompletionRequest(tool_choice=choice))


@pytest.mark.parametrize(
    ("wanted", "written"),
    [
        (SCHEMA, {"name": "answer", "schema": SCHEMA}),
        (
            {"name": "n", "schema": SCHEMA, "strict": True},
            {"name": "n", "schema": SCHEMA, "strict": True},
        ),
    ],
)
def test_a_schema_is_wrapped_as_the_api_wants_it(wanted: Any, written: Any) -> None:
    request = ChatCompletionRequest(response_format=ResponseFormat.json_schema(wanted))
    assert body(request)["response_format"] == {"type": "json_schema", "json_schema": written}


def test_calls_and_results_go_back_as_they_came_and_reasoning_does_not() -> None:
    asked = ChatMessage.assistant_with_tool_calls([ToolCall.new("a", "f", {"x": 1})])
    asked.reasoning_content = "Hm."
    told = ChatMessage.tool_result("a", "2")
    assert body(ChatCompletionRequest(messages=[asked, told]))["messages"] == [
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
            ],
        },
        {"role": "tool", "content": "2", "tool_call_id": "a"},
    ]


def test_extra_keys_are_passed_on_but_for_those_that_are_ours() -> None:
    request = ChatCompletionRequest.new().with_options(
        {"top_k": 40, "seed": 1, "timeout_s": 3.0, "session_id": "s"}
    )
    written = body(request)
    assert (written["top_k"], written["seed"]) == (40, 1)
    assert not {"timeout_s", "session_id"} & written.keys()


def test_configured_defaults_fill_in_what_a_request_leaves_out() -> None:
    options = {"default_temperature": 0.2, "default_max_tokens": 9}
    silent = body(ChatCompletionRequest.new(), **options)
    assert (silent["temperature"], silent["max_tokens"]) == (0.2, 9)
    spoken = body(ChatCompletionRequest.new().with_temperature(1).with_max_tokens(5), **options)
    assert (spoken["temperature"], spoken["max_tokens"]) == (1, 5)
    renamed = body(
        ChatCompletionRequest.new().with_max_tokens(5), max_tokens_key="max_completion_tokens"
    )
    assert renamed["max_completion_tokens"] == 5
    assert "max_tokens" not in renamed


async def test_headers_and_embeddings_go_where_they_belong(server: ScriptedServer) -> None:
    server.says(
        whole("Hello"),
        Reply(('{"data": [{"index": 1, "embedding": [2]}, {"index": 0, "embedding": [1.5]}]}',)),
    )
    config = OpenAIConfig(
        base_url=server.base_url,
        model="small",
        embedding_model="vectors",
        organization="org",
        headers={"x-title": "agents"},
    )
    async with OpenAIProvider(config) as provider:
        await provider.chat(ChatCompletionRequest.new("other").user_message("Hi"))
        answer = await provider.embedding(EmbeddingRequest(model="", input=["a", "b"]))
    chat, embedding = server.requests
    assert (chat.path, chat.body["model"]) == ("/v1/chat/completions", "other")
    assert (chat.headers["openai-organization"], chat.headers["x-title"]) == ("org", "agents")
    assert embedding.body == {"model": "vectors", "input": ["a", "b"], "encoding_format": "float"}
    assert [vector.embedding for vector in answer.data] == [[1.5], [2.0]]

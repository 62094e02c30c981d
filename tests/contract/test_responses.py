"""Responses, chunks, embeddings and model descriptions in MoFA's JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mofa_gguf.contract import (
    ChatCompletionChunk,
    ChatCompletionResponse,
    ChatMessage,
    ChunkDelta,
    EmbeddingRequest,
    EmbeddingResponse,
    FinishReason,
    LLMResponseMetadata,
    ModelInfo,
    SerializationError,
    ToolCallDelta,
    Usage,
)
from mofa_gguf.contract.base import ContractModel

USAGE = {"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15}

MOFA_VALUES: list[tuple[type[ContractModel], dict[str, Any]]] = [
    (
        ChatCompletionResponse,
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1_767_225_600,
            "model": "tiny",
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": "Hello."},
                    "finish_reason": "stop",
                    "logprobs": {"content": [{"token": "Hello", "logprob": -0.25}]},
                },
                {"index": 1, "message": {"role": "assistant", "content": "Hi."}},
            ],
            "usage": USAGE,
            "system_fingerprint": "fp",
        },
    ),
    (
        ChatCompletionResponse,
        {
            "id": "x",
            "object": "chat.completion",
            "created": 2**64 - 1,
            "model": "",
            "choices": [
                {
                    "index": 0,
                    "message": {
                        "role": "assistant",
                        "tool_calls": [
                            {
                                "id": "c",
                                "type": "function",
                                "function": {"name": "f", "arguments": "{}"},
                            }
                        ],
                    },
                    "finish_reason": "tool_calls",
                }
            ],
        },
    ),
    (
        ChatCompletionChunk,
        {
            "id": "x",
            "object": "chat.completion.chunk",
            "created": 1,
            "model": "m",
            "choices": [{"index": 0, "delta": {"role": "assistant", "content": "He"}}],
        },
    ),
    (
        ChatCompletionChunk,
        {
            "id": "x",
            "object": "chat.completion.chunk",
            "created": 1,
            "model": "m",
            "choices": [
                {
                    "index": 0,
                    "delta": {
                        "tool_calls": [
                            {
                                "index": 0,
                                "id": "c",
                                "type": "function",
                                "function": {"name": "f", "arguments": ""},
                            },
                            {"index": 0, "function": {"arguments": '{"a"'}},
                        ]
                    },
                }
            ],
        },
    ),
    (
        ChatCompletionChunk,
        {
            "id": "x",
            "object": "chat.completion.chunk",
            "created": 1,
            "model": "m",
            "choices": [{"index": 0, "delta": {}, "finish_reason": "length"}],
            "usage": USAGE,
        },
    ),
    (EmbeddingRequest, {"model": "m", "input": "one"}),
    (
        EmbeddingRequest,
        {
            "model": "m",
            "input": ["one", ""],
            "encoding_format": "float",
            "dimensions": 384,
            "user": "ada",
        },
    ),
    (
        EmbeddingResponse,
        {
            "object": "list",
            "model": "m",
            "data": [{"object": "embedding", "index": 0, "embedding": [0.5, -0.25, 1.0]}],
            "usage": {"prompt_tokens": 4, "total_tokens": 4},
        },
    ),
    (
        ModelInfo,
        {
            "id": "m",
            "name": "Tiny",
            "description": "a model",
            "context_window": 8192,
            "max_output_tokens": 4096,
            "training_cutoff": "2025-12",
            "capabilities": {
                "streaming": True,
                "tools": False,
                "vision": False,
                "json_mode": True,
                "json_schema": True,
            },
        },
    ),
    (LLMResponseMetadata, {"id": "x", "model": "m", **USAGE}),
]


@pytest.mark.parametrize(("kind", "data"), MOFA_VALUES)
def test_a_value_in_mofas_shape_is_written_as_it_was_read(
    kind: type[ContractModel], data: dict[str, Any]
) -> None:
    assert json.loads(kind.from_json(json.dumps(data)).to_json()) == data


def test_mofas_model_info_writes_its_missing_fields_as_null_and_is_read() -> None:
    # Rust's ModelInfo is the one type that does not skip None.
    text = (
        '{"id":"m","name":"m","description":null,"context_window":null,"max_output_tokens":null,'
        '"training_cutoff":null,"capabilities":{"streaming":true,"tools":true,"vision":false,'
        '"json_mode":false,"json_schema":false}}'
    )
    info = ModelInfo.from_json(text)
    assert info.context_window is None
    assert "context_window" not in info.to_dict()


def response(message: ChatMessage | None, usage: Usage | None = None) -> ChatCompletionResponse:
    choices = [] if message is None else [{"message": message, "finish_reason": "stop"}]
    return ChatCompletionResponse.from_dict(
        {"id": "x", "created": 1, "model": "m", "choices": choices, "usage": usage}
    )


def test_the_shortcuts_look_at_the_first_choice() -> None:
    answered = response(ChatMessage.assistant("a"))
    assert answered.content() == "a"
    assert answered.tool_calls() is None
    assert not answered.has_tool_calls()
    assert answered.finish_reason() is FinishReason.STOP


def test_the_shortcuts_of_a_response_without_choices_say_nothing() -> None:
    empty = response(None)
    assert (empty.content(), empty.tool_calls(), empty.finish_reason()) == (None, None, None)
    assert not empty.has_tool_calls()


def test_an_empty_list_of_tool_calls_is_no_tool_call() -> None:
    assert not response(ChatMessage.assistant_with_tool_calls([])).has_tool_calls()


def test_metadata_counts_are_zero_without_usage() -> None:
    assert LLMResponseMetadata.of(response(None)).total_tokens == 0
    metadata = LLMResponseMetadata.of(response(None, Usage.new(4, 5)))
    assert (metadata.prompt_tokens, metadata.completion_tokens, metadata.total_tokens) == (4, 5, 9)


def test_a_tool_calls_first_delta_has_empty_arguments_and_later_ones_no_id() -> None:
    assert ToolCallDelta.start(1, "c", "f").to_dict() == {
        "index": 1,
        "id": "c",
        "type": "function",
        "function": {"name": "f", "arguments": ""},
    }
    assert ToolCallDelta.fragment(1, "{").to_dict() == {"index": 1, "function": {"arguments": "{"}}


def test_a_delta_with_a_role_alone_is_empty() -> None:
    assert ChunkDelta.from_dict({"role": "assistant", "content": ""}).is_empty()
    assert not ChunkDelta(content="a").is_empty()
    assert not ChunkDelta(reasoning_content="a").is_empty()


def test_embedding_input_is_one_text_or_several() -> None:
    assert EmbeddingRequest(model="m", input="a").texts() == ["a"]
    assert EmbeddingRequest(model="m", input=["a", "b"]).texts() == ["a", "b"]


@pytest.mark.parametrize(
    ("kind", "data", "field"),
    [
        (Usage, {**USAGE, "total_tokens": -1}, "total_tokens"),
        (ChatCompletionResponse, {"id": "x", "created": 1, "model": "m"}, "choices"),
        (ModelInfo, {"id": "m", "name": "m", "context_window": "8k"}, "context_window"),
        (EmbeddingRequest, {"model": "m", "input": 3}, "input"),
    ],
)
def test_a_wrong_value_names_its_field(
    kind: type[ContractModel], data: dict[str, Any], field: str
) -> None:
    with pytest.raises(SerializationError, match=f"this is no {kind.__name__}: {field}"):
        kind.from_dict(data)

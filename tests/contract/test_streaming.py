"""What a stream owes MoFA's readers: the two traps, and whole streams gathered up."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import Any

import pytest

from mofa_gguf.contract import (
    ChatCompletionChunk,
    ChatMessage,
    FinishReason,
    Other,
    ToolCall,
    Usage,
    gather,
    split_chunk,
    stream_violations,
)


def chunk(
    delta: dict[str, Any] | None = None,
    *,
    finish: str | None = None,
    index: int = 0,
    usage: Usage | None = None,
    **more: Any,
) -> ChatCompletionChunk:
    choice = {"index": index, "delta": delta or {}, "finish_reason": finish, **more}
    return ChatCompletionChunk.from_dict(
        {"id": "x", "created": 7, "model": "m", "choices": [choice], "usage": usage}
    )


def call(index: int = 0, **delta: Any) -> dict[str, Any]:
    function = {key: delta.pop(key) for key in ("name", "arguments") if key in delta}
    return {"tool_calls": [{"index": index, "function": function, **delta}]}


async def stream_of(chunks: Iterable[ChatCompletionChunk]) -> AsyncIterator[ChatCompletionChunk]:
    for item in chunks:
        yield item


def read_as_mofa_does(chunks: Iterable[ChatCompletionChunk]) -> tuple[str, dict[str, str]]:
    """Text and arguments by tool name, as MoFA's stream bridge delivers them."""
    text, arguments, open_call = "", {}, ""
    for item in chunks:
        choice = item.choices[0]
        for delta in choice.delta.tool_calls or ():
            function = delta.function
            assert function is not None
            if delta.id is not None:  # starts a call; any arguments here are lost
                open_call = function.name or ""
                arguments[open_call] = ""
            else:
                arguments[open_call] += function.arguments or ""
        if choice.finish_reason is None:  # text beside a finish reason is lost
            text += choice.delta.content or ""
    return text, arguments


SOUND = [
    chunk({"role": "assistant"}),
    chunk({"reasoning_content": "hm"}),
    chunk({"content": "Let me "}),
    chunk({"content": "look."}),
    chunk(call(0, id="a", type="function", name="weather", arguments="")),
    chunk(call(0, arguments='{"city":')),
    chunk(call(0, arguments='"Oslo"}')),
    chunk(call(1, id="b", type="function", name="add", arguments="")),
    chunk(call(1, arguments="{}")),
    chunk(finish="tool_calls", usage=Usage.new(3, 9)),
]


def test_a_sound_stream_has_no_violation() -> None:
    assert stream_violations(SOUND) == []


def test_mofas_bridge_loses_nothing_of_a_sound_stream() -> None:
    assert read_as_mofa_does(SOUND) == (
        "Let me look.",
        {"weather": '{"city":"Oslo"}', "add": "{}"},
    )


@pytest.mark.parametrize(
    ("chunks", "violation"),
    [
        ([], "the stream has no chunk at all"),
        ([chunk({"content": "a"})], "choice 0 never finished"),
        ([chunk({"content": "a"}, finish="stop")], "choice 0 has a delta beside its finish_reason"),
        (
            [chunk(call(id="a", name="f", arguments="{}")), chunk(finish="tool_calls")],
            "tool call 0 starts with arguments",
        ),
        (
            [chunk(call(name="f", arguments="")), chunk(finish="tool_calls")],
            "tool call 0 starts without id and name",
        ),
        (
            [
                chunk(call(id="a", name="f", arguments="")),
                chunk(call(id="a", arguments="{}")),
                chunk(finish="tool_calls"),
            ],
            "tool call 0 repeats its id",
        ),
        ([chunk(finish="stop"), chunk({"content": "a"})], "goes on after its finish_reason"),
        (
            [chunk({"role": "assistant"}), chunk({"role": "assistant"}), chunk(finish="stop")],
            "choice 0 repeats its role",
        ),
        (
            [chunk({"content": "a"}, usage=Usage.new(1, 1)), chunk(finish="stop")],
            "chunk 0 has the usage and is not the last",
        ),
    ],
)
def test_every_breach_of_the_obligations_is_named(
    chunks: list[ChatCompletionChunk], violation: str
) -> None:
    assert any(violation in found for found in stream_violations(chunks))


def test_text_on_the_finishing_chunk_is_split_off_and_reaches_mofa() -> None:
    trap = chunk(
        {"role": "assistant", "content": "all of it"}, finish="stop", usage=Usage.new(1, 3)
    )
    assert read_as_mofa_does([trap]) == ("", {})
    pieces = split_chunk(trap)
    assert stream_violations(pieces) == []
    assert read_as_mofa_does(pieces) == ("all of it", {})
    assert [piece.usage for piece in pieces] == [None, Usage.new(1, 3)]


def test_arguments_on_a_calls_first_delta_are_split_off_and_reach_mofa() -> None:
    trap = chunk(call(id="a", type="function", name="f", arguments='{"x":1}'), finish="tool_calls")
    assert read_as_mofa_does([trap]) == ("", {"f": ""})
    pieces = split_chunk(trap)
    assert stream_violations(pieces) == []
    assert read_as_mofa_does(pieces) == ("", {"f": '{"x":1}'})


def test_a_chunk_that_keeps_the_rules_is_not_touched() -> None:
    for item in SOUND:
        assert split_chunk(item) == [item]


def test_splitting_keeps_every_choice_of_a_chunk() -> None:
    both = chunk({"content": "a"}, finish="stop")
    both.choices.append(chunk({"content": "b"}, index=1).choices[0])
    first, last = split_chunk(both)
    assert [(c.index, c.delta.content) for c in first.choices] == [(0, "a"), (1, "b")]
    assert [(c.index, c.finish_reason) for c in last.choices] == [(0, FinishReason.STOP)]


async def test_a_gathered_stream_is_the_response_that_chat_gives() -> None:
    response = await gather(stream_of(SOUND))
    assert (response.id, response.created, response.model) == ("x", 7, "m")
    assert response.object == "chat.completion"
    assert response.usage == Usage.new(3, 9)
    assert response.finish_reason() is FinishReason.TOOL_CALLS
    message = response.choices[0].message
    assert message.content == "Let me look."
    assert message.reasoning_content == "hm"
    assert message.tool_calls == [
        ToolCall.new("a", "weather", '{"city":"Oslo"}'),
        ToolCall.new("b", "add", "{}"),
    ]


async def test_whole_and_split_streams_gather_to_the_same_response() -> None:
    trap = chunk(call(id="a", name="f", arguments="{}"), finish="tool_calls")
    assert await gather(stream_of(split_chunk(trap))) == await gather(stream_of([trap]))


async def test_calls_without_text_have_no_content_and_no_answer_is_empty_text() -> None:
    calls_only = await gather(
        stream_of([chunk(call(id="a", name="f", arguments="")), chunk(finish="tool_calls")])
    )
    assert calls_only.choices[0].message.content is None
    silent = await gather(stream_of([chunk({"role": "assistant"}), chunk(finish="stop")]))
    assert silent.choices[0].message == ChatMessage.assistant("")


async def test_choices_are_gathered_apart_and_in_order() -> None:
    chunks = [
        chunk({"content": "b"}, index=1),
        chunk({"content": "a"}),
        chunk({"content": "B"}, index=1, finish="length"),
        chunk(finish="stop"),
    ]
    response = await gather(stream_of(chunks))
    assert [(c.index, c.message.content, c.finish_reason) for c in response.choices] == [
        (0, "a", FinishReason.STOP),
        (1, "bB", FinishReason.LENGTH),
    ]


async def test_log_probabilities_of_chunks_are_joined() -> None:
    chunks = [
        chunk({"content": "a"}, logprobs={"content": [{"token": "a", "logprob": -1.0}]}),
        chunk({"content": "b"}, logprobs={"content": [{"token": "b", "logprob": -2.0}]}),
        chunk(finish="stop"),
    ]
    gathered = (await gather(stream_of(chunks))).choices[0].logprobs
    assert [entry["token"] for entry in gathered["content"]] == ["a", "b"]


async def test_a_stream_without_a_chunk_is_an_error() -> None:
    with pytest.raises(Other, match="ended without a chunk"):
        await gather(stream_of([]))

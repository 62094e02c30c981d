"""Streams as servers really send them, read as MoFA's readers need them."""

from __future__ import annotations

from typing import Any

import pytest
from mofa_openai.stream import StreamReader
from scripted_server import delta

from mofa_gguf import ChatCompletionChunk, ChatCompletionResponse, FinishReason, stream_violations
from mofa_gguf.contract import ResponseGatherer

Json = dict[str, Any]

USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}


def call(index: int | None = 0, **news: Any) -> Json:
    function = {key: news.pop(key) for key in ("name", "arguments") if key in news}
    told: Json = {**news, "type": "function", "function": function}
    return told if index is None else {"index": index, **told}


def read(*events: Json) -> tuple[list[ChatCompletionChunk], ChatCompletionResponse]:
    reader = StreamReader("small")
    chunks = [chunk for event in events for chunk in reader.feed(event)] + reader.finish()
    gatherer = ResponseGatherer()
    for chunk in chunks:
        gatherer.add(chunk)
    return chunks, gatherer.response()


STREAMS: dict[str, tuple[list[Json], str | None, list[tuple[str, str]]]] = {
    "OpenAI: usage after the end": (
        [
            delta(role="assistant", content=""),
            delta(content="Hel"),
            delta(content="lo"),
            delta("stop"),
            {"id": "chatcmpl-1", "choices": [], "usage": USAGE},
        ],
        "Hello",
        [],
    ),
    "usage in every chunk": (
        [
            {**delta(role="assistant", content="Hello"), "usage": USAGE},
            {**delta("stop"), "usage": USAGE},
        ],
        "Hello",
        [],
    ),
    "Ollama: a role in every chunk, text beside the end": (
        [delta(role="assistant", content="Hel"), delta("stop", role="assistant", content="lo")],
        "Hello",
        [],
    ),
    "no role at all": ([delta(content="Hello"), delta("stop")], "Hello", []),
    "news after the end": (
        [delta(content="Hello"), delta("stop"), delta(content=""), delta("stop")],
        "Hello",
        [],
    ),
    "OpenAI: a call in fragments": (
        [
            delta(role="assistant", tool_calls=[call(id="a", name="f", arguments="")]),
            delta(tool_calls=[call(arguments='{"x"')]),
            delta(tool_calls=[call(arguments=": 1}")]),
            delta("tool_calls"),
        ],
        None,
        [("f", '{"x": 1}')],
    ),
    "Ollama: a whole call in one delta, and 'stop' at the end": (
        [delta(tool_calls=[call(id="a", name="f", arguments='{"x": 1}')]), delta("stop")],
        None,
        [("f", '{"x": 1}')],
    ),
    "a whole call beside the end": (
        [delta("tool_calls", tool_calls=[call(id="a", name="f", arguments='{"x": 1}')])],
        None,
        [("f", '{"x": 1}')],
    ),
    "several calls under one index": (
        [
            delta(tool_calls=[call(id="a", name="f", arguments="{}")]),
            delta(tool_calls=[call(id="b", name="g", arguments='{"y": 2}')]),
            delta("tool_calls"),
        ],
        None,
        [("f", "{}"), ("g", '{"y": 2}')],
    ),
    "an id repeated in every fragment": (
        [
            delta(tool_calls=[call(id="a", name="f", arguments="{")]),
            delta(tool_calls=[call(id="a", name="f", arguments="}")]),
            delta("tool_calls"),
        ],
        None,
        [("f", "{}")],
    ),
    "a call without an id or index, arguments as an object": (
        [delta(tool_calls=[call(None, name="f", arguments={"x": 1})]), delta("tool_calls")],
        None,
        [("f", '{"x": 1}')],
    ),
    "two calls in turns": (
        [
            delta(tool_calls=[call(0, id="a", name="f"), call(1, id="b", name="g")]),
            delta(tool_calls=[call(1, arguments="{}"), call(0, arguments='{"x": 1}')]),
            delta("tool_calls"),
        ],
        None,
        [("f", '{"x": 1}'), ("g", "{}")],
    ),
}


@pytest.mark.parametrize("case", STREAMS)
def test_a_stream_keeps_to_the_contracts_rules_and_loses_nothing(case: str) -> None:
    events, text, calls = STREAMS[case]
    chunks, response = read(*events)
    assert stream_violations(chunks) == []
    assert response.content() == text
    told = [(c.function.name, c.function.arguments) for c in response.tool_calls() or ()]
    assert told == calls
    assert response.finish_reason() is (FinishReason.TOOL_CALLS if calls else FinishReason.STOP)
    ids = [c.id for c in response.tool_calls() or ()]
    assert all(ids)
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("case", [name for name in STREAMS if "usage" in name])
def test_the_usage_is_on_the_last_chunk(case: str) -> None:
    chunks, response = read(*STREAMS[case][0])
    assert [chunk.usage is not None for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert response.usage is not None
    assert response.usage.to_dict() == USAGE


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning"])
def test_reasoning_is_kept_out_of_the_content(key: str) -> None:
    chunks, response = read(delta(**{key: "Hm. "}), delta(content="Yes."), delta("stop"))
    assert stream_violations(chunks) == []
    assert response.content() == "Yes."
    assert response.choices[0].message.reasoning_content == "Hm. "


def test_several_choices_are_told_apart() -> None:
    chunks, response = read(
        delta(index=0, content="a"),
        delta(index=1, content="b"),
        delta("length", index=1),
        delta("stop", index=0),
    )
    assert stream_violations(chunks) == []
    assert [choice.message.content for choice in response.choices] == ["a", "b"]
    assert [c.finish_reason for c in response.choices] == [FinishReason.STOP, FinishReason.LENGTH]


def test_an_unknown_end_is_an_end() -> None:
    assert read(delta(content="a"), delta("eos_token"))[1].finish_reason() is FinishReason.STOP


def test_what_the_envelope_lacks_is_made_up_once() -> None:
    chunks, _ = read({"choices": delta(content="a")["choices"]}, delta("stop"))
    assert {chunk.model for chunk in chunks} == {"small"}
    assert len({chunk.id for chunk in chunks}) == 1

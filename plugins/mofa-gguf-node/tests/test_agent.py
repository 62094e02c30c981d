"""The agent, on a scripted provider."""

from __future__ import annotations

import json

import pytest
from scenes import Stage

from mofa_gguf import ChatMessage, ContextLengthExceeded, ModelNotFound, ToolCall
from mofa_gguf.contract import LLMError
from mofa_gguf.host.testing import ScriptedProvider


async def test_a_query_is_answered_in_mofas_envelope_and_its_metadata_goes_on() -> None:
    stage = Stage(ScriptedProvider(["Hello!"]))
    await stage.ask('{"node_results": "Hi"}', request_id="r", n=3, timestamp="dora's own")
    (result,) = stage.of("llm_result")
    assert json.loads(str(result.payload)) == {
        "step_name": "llm_result",
        "node_results": "Hello!",
        "dataflow_status": True,
    }
    assert result.metadata == {"request_id": "r", "n": 3, "segment_id": 1}


async def test_the_pieces_of_an_answer_are_a_stream_of_doras_pattern() -> None:
    stage = Stage(ScriptedProvider(["Hello there", "Again"]))
    await stage.ask("Hi", session_id="s")
    await stage.ask("Hi", session_id="s")
    pieces = stage.of("llm_stream")
    first = [piece for piece in pieces if piece.metadata["segment_id"] == 1]
    assert "".join(str(piece.payload) for piece in first) == "Hello there"
    assert [piece.metadata["seq"] for piece in first] == list(range(len(first)))
    assert [piece.metadata["fin"] for piece in first] == [False] * (len(first) - 1) + [True]
    assert {piece.metadata["session_id"] for piece in pieces} == {"s"}
    assert {piece.metadata["segment_id"] for piece in pieces} == {1, 2}


async def test_outputs_that_the_dataflow_lacks_are_not_sent() -> None:
    stage = Stage(ScriptedProvider(["Hello!"]), outputs=["llm_result"])
    await stage.agent.start()
    await stage.ask("Hi")
    assert {outgoing.port for outgoing in stage.sent} == {"llm_result"}


async def test_queries_without_a_session_stand_alone() -> None:
    provider = ScriptedProvider()
    stage = Stage(provider, system="Be brief.")
    await stage.ask("one")
    await stage.ask("two")
    said = [[m.text_content() for m in request.messages] for request in provider.requests]
    assert said == [["Be brief.", "one"], ["Be brief.", "two"]]


async def test_sessions_remember_each_its_own() -> None:
    provider = ScriptedProvider()
    stage = Stage(provider)
    for text, session in (("one", "a"), ("two", "b"), ("three", "a")):
        await stage.ask(text, session_id=session)
    assert [len(request.messages) for request in provider.requests] == [1, 1, 3]
    await stage.ask("anything", port="forget", session_id="a")
    await stage.ask("four", session_id="a")
    assert len(provider.requests[-1].messages) == 1


async def test_a_configured_session_is_that_of_queries_that_name_none() -> None:
    provider = ScriptedProvider()
    stage = Stage(provider, session="always", memory_turns=2)
    for text in ("one", "two", "three"):
        await stage.ask(text)
    seen = [m.text_content() for m in provider.requests[-1].messages]
    assert seen == ["two", "two", "three"]


async def test_the_longest_silent_session_is_forgotten_first() -> None:
    provider = ScriptedProvider()
    stage = Stage(provider, max_sessions=2)
    for session in ("a", "b", "a", "c", "b"):
        await stage.ask("hello", session_id=session)
    assert [len(request.messages) for request in provider.requests] == [1, 1, 3, 1, 1]


async def test_options_go_into_every_request() -> None:
    provider = ScriptedProvider()
    await Stage(provider, temperature=0.5, options={"top_k": 9}).ask("hello")
    (request,) = provider.requests
    assert (request.temperature, request.extra) == (0.5, {"top_k": 9})


async def test_a_tool_is_run_and_its_result_is_told() -> None:
    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    call = ChatMessage.assistant_with_tool_calls([ToolCall.new("1", "add", {"a": 2, "b": 3})])
    provider = ScriptedProvider([call, "It is 5."])
    stage = Stage(provider, tools=[add])
    await stage.ask("2 + 3?")
    assert stage.answers() == ["It is 5."]
    assert provider.requests[1].messages[-1].text_content() == "5"
    assert "".join(str(piece.payload) for piece in stage.of("llm_stream")) == "It is 5."


async def test_an_answer_to_a_schema_that_is_no_json_is_an_error() -> None:
    stage = Stage(ScriptedProvider(['{"n": 1}', '{"n": ']), response_format={"type": "object"})
    await stage.ask("one")
    await stage.ask("two")
    assert stage.answers() == ['{"n": 1}']
    assert [error["error"] for error in stage.errors()] == ["SerializationError"]


async def test_texts_become_vectors() -> None:
    stage = Stage(ScriptedProvider())
    await stage.ask('["one", "two"]', port="embed", request_id="r")
    await stage.ask("three", port="embed")
    first, second = stage.of("embedding")
    assert [len(first.payload), len(second.payload)] == [2, 1]
    assert first.metadata["request_id"] == "r"


@pytest.mark.parametrize("garbage", [(), (None,), ({"a": 1},), (b"\xff",)])
async def test_garbage_is_an_error_event_and_the_agent_goes_on(garbage: tuple[object, ...]) -> None:
    stage = Stage(ScriptedProvider(["Hello!"]))
    await stage.ask(*garbage, request_id="r")
    await stage.ask("Hi")
    (error,) = stage.errors()
    assert (error["error"], error["input"]) == ("SerializationError", "query")
    assert stage.of("error")[0].metadata["request_id"] == "r"
    assert stage.answers() == ["Hello!"]


async def test_an_error_event_has_the_errors_class_and_data() -> None:
    failure = ContextLengthExceeded("too long", n_tokens=9, n_ctx=8)
    stage = Stage(ScriptedProvider([failure]))
    await stage.ask("Hi", session_id="s")
    (event,) = stage.of("error")
    assert json.loads(str(event.payload)) == {
        "error": "ContextLengthExceeded",
        "message": "too long",
        "n_tokens": 9,
        "n_ctx": 8,
        "input": "query",
    }
    assert event.metadata["error"] == "ContextLengthExceeded"
    assert [piece.metadata["fin"] for piece in stage.of("llm_stream")] == [True]
    assert stage.answers() == []


async def test_without_an_error_output_the_result_has_the_error_as_the_stock_agents_does() -> None:
    failure = ContextLengthExceeded("too long")
    stage = Stage(ScriptedProvider([failure]), outputs=["llm_result"])
    await stage.ask("Hi")
    assert stage.answers() == ["Error: Context length exceeded: too long"]
    assert stage.of("llm_result")[0].metadata["error"] == "ContextLengthExceeded"


async def test_a_provider_that_breaks_its_promise_is_heard_of() -> None:
    class Broken(ScriptedProvider):
        def _check(self, request: object) -> None:
            raise ZeroDivisionError("oops")

    stage = Stage(Broken())
    await stage.ask("Hi")
    assert stage.errors()[0]["message"] == "ZeroDivisionError: oops"


async def test_the_state_is_told_from_loading_to_ready() -> None:
    stage = Stage(ScriptedProvider())
    await stage.agent.start()
    assert stage.states() == ["loading", "ready"]


async def test_a_model_that_cannot_be_loaded_is_told_and_the_agent_stays() -> None:
    class Missing(ScriptedProvider):
        async def get_model_info(self, model: str) -> object:  # type: ignore[override]
            raise ModelNotFound("no such file")

    stage = Stage(Missing([LLMError("no such file")]))
    await stage.agent.start()
    assert stage.states() == ["loading", "error"]
    await stage.ask("Hi")
    assert len(stage.errors()) == 1


async def test_a_provider_that_breaks_its_promise_while_loading_is_told_too() -> None:
    class Broken(ScriptedProvider):
        async def get_model_info(self, model: str) -> object:  # type: ignore[override]
            raise ZeroDivisionError("oops")

    stage = Stage(Broken())
    await stage.agent.start()
    assert stage.states() == ["loading", "error"]


async def test_an_unknown_input_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    stage = Stage(ScriptedProvider())
    await stage.ask("Hi", port="qurey")
    assert stage.sent == []
    assert "qurey" in caplog.text


async def test_different_sessions_are_answered_side_by_side_and_one_in_turn() -> None:
    provider = ScriptedProvider(delay_s=0.01)
    stage = Stage(provider)
    for text, session in (("a1", "a"), ("b1", "b"), ("a2", "a")):
        stage.put(text, session_id=session)
    await stage.settled()
    assert sorted(stage.answers()) == ["a1", "a2", "b1"]
    assert [len(r.messages) for r in provider.requests if r.messages[0].text_content() == "a1"] == [
        1,
        3,
    ]


async def test_it_is_over_when_its_own_inputs_are_closed() -> None:
    stage = Stage(ScriptedProvider(), inputs={"query": "asker", "embed": "asker", "response": "m"})
    assert not stage.agent.is_over()
    stage.agent.closed("query")
    stage.agent.closed("embed")
    assert stage.agent.is_over()


async def test_stopping_ends_answers_and_closes_the_provider() -> None:
    provider = ScriptedProvider(["a long answer that takes its time"], delay_s=0.05)
    stage = Stage(provider)
    stage.put("Hi")
    await stage.agent.start()
    await stage.agent.stop()
    assert provider.closed
    assert provider.n_open_streams == 0
    assert stage.answers() == []

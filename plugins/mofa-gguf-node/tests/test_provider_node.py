"""An agent and a provider node: the same answers, and what becomes of them when the node dies."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from mofa_gguf_node import failures, wire
from mofa_gguf_node.ports import Arrived
from scenes import Pair, until

from mofa_gguf import (
    ApiError,
    ChatCompletionRequest,
    ChatMessage,
    ConfigError,
    ContextLengthExceeded,
    EmbeddingRequest,
    ModelNotFound,
    NetworkError,
    RateLimited,
    Timeout,
    stream_violations,
)
from mofa_gguf.contract import LLMError
from mofa_gguf.host import KindTaken
from mofa_gguf.host.testing import ScriptedProvider

ASK = ChatCompletionRequest.new().user_message("Hi")


async def test_an_agent_of_a_provider_node_answers_as_one_with_a_model_of_its_own() -> None:
    pair = Pair(system="Be brief.")
    provider = ScriptedProvider(["Hello there"])
    await pair.start_service(provider)
    await pair.stage.agent.start()
    await pair.stage.ask("Hi", request_id="mine")
    assert pair.stage.answers() == ["Hello there"]
    assert pair.stage.of("llm_result")[0].metadata["request_id"] == "mine"
    assert pair.stage.states() == ["loading", "ready"]
    assert [m.text_content() for m in provider.requests[0].messages] == ["Be brief.", "Hi"]


async def test_a_remote_stream_keeps_to_the_contracts_rules() -> None:
    pair = Pair()
    await pair.start_service(ScriptedProvider(["Hello there"]))
    chunks = [chunk async for chunk in pair.remote.chat_stream(ASK)]
    assert stream_violations(chunks) == []
    replies = [out for out in pair.told if "fin" in out.metadata]
    assert [out.metadata["seq"] for out in replies] == list(range(len(chunks) + 1))
    assert [out.metadata["fin"] for out in replies] == [False] * len(chunks) + [True]


async def test_vectors_and_descriptions_come_over_the_wire() -> None:
    pair = Pair()
    provider = ScriptedProvider()
    await pair.start_service(provider)
    request = EmbeddingRequest(model="", input=["a", "b"])
    assert await pair.remote.embedding(request) == await provider.embedding(request)
    assert (await pair.remote.get_model_info("")).id == "scripted"
    assert await pair.remote.health_check()
    with pytest.raises(LLMError, match="does not count"):
        await pair.remote.count_tokens([ChatMessage.user("Hi")])


ERRORS = [
    ContextLengthExceeded("long", n_tokens=9, n_ctx=8),
    RateLimited("slow", limit=3, retry_after_s=1.5),
    ApiError("boom", code="500"),
    ModelNotFound("none", model="m", known=["a", "b"]),
    ConfigError("bad", field="f", known=["x"]),
    Timeout("late", timeout_s=2.0),
    LLMError("odd"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
async def test_an_error_comes_over_the_wire_as_it_was(error: LLMError) -> None:
    pair = Pair()
    await pair.start_service(ScriptedProvider([error]))
    with pytest.raises(LLMError) as raised:
        await pair.remote.chat(ASK)
    assert type(raised.value) is (type(error) if type(error) is not LLMError else LLMError)
    assert vars(raised.value) == vars(error)


def test_an_error_of_the_hosts_own_goes_by_the_contracts_name() -> None:
    told = failures.to_dict(KindTaken("gguf", holder="a", claimant="b"))
    assert told["error"] == "ConfigError"
    assert failures.to_dict(ConfigError("bad", path=Path("x")))["path"] == "x"
    assert isinstance(failures.from_dict({"error": "NoSuchThing", "message": "m"}), LLMError)
    assert isinstance(failures.from_dict({"error": ["?"]}), LLMError)


async def test_eight_agents_are_answered_side_by_side() -> None:
    pair = Pair()
    provider = ScriptedProvider(delay_s=0.005)
    await pair.start_service(provider)
    asked = [ChatCompletionRequest.new().user_message(f"question {n}") for n in range(8)]
    running = asyncio.gather(*map(pair.remote.chat, asked))
    await until(lambda: provider.n_open_streams == 8)
    assert [a.content() for a in await running] == [f"question {n}" for n in range(8)]


async def test_an_answer_that_nobody_wants_any_more_is_cancelled() -> None:
    pair = Pair()
    provider = ScriptedProvider(["a long answer"], delay_s=0.01)
    await pair.start_service(provider)
    stream = pair.remote.chat_stream(ASK)
    await anext(stream)
    await stream.aclose()
    await until(lambda: provider.n_cancelled == 1)


async def test_an_agent_that_is_gone_is_answered_no_more() -> None:
    pair = Pair()
    provider = ScriptedProvider(["a long answer"], delay_s=0.01)
    await pair.start_service(provider)
    stream = pair.remote.chat_stream(ASK)
    await anext(stream)
    assert pair.service is not None
    pair.service.closed("agent")
    await until(lambda: provider.n_cancelled == 1)
    await stream.aclose()


async def test_a_death_during_the_answer_is_an_error_and_the_next_query_is_answered() -> None:
    pair = Pair()
    await pair.start_service(ScriptedProvider(["a long answer"], delay_s=0.02))
    pair.stage.put("one")
    await until(lambda: len(pair.stage.of("llm_stream")) > 0)
    await pair.kill_service()
    pair.stage.agent.restarted("somebody else")
    assert pair.stage.errors() == []
    pair.stage.agent.restarted("model")
    await until(lambda: len(pair.stage.errors()) == 1)
    assert pair.stage.errors()[0]["error"] == "NetworkError"
    await pair.start_service(ScriptedProvider(["Hello again"]))
    await pair.stage.settled()
    await pair.stage.ask("two")
    assert pair.stage.answers() == ["Hello again"]
    assert pair.stage.states()[-1] == "ready"


async def test_what_was_asked_while_the_node_was_down_is_asked_again_when_it_is_up() -> None:
    pair = Pair()
    pair.stage.put("one")  # nobody is there to hear it
    await asyncio.sleep(0.01)
    await pair.start_service(ScriptedProvider(["Hello"]))
    await pair.stage.settled()
    assert pair.stage.answers() == ["Hello"]
    chats = [told for told in pair.carried if told["op"] == "chat"]
    assert len(chats) == 2
    assert chats[0] == chats[1]


async def test_a_request_that_comes_twice_is_answered_once() -> None:
    pair = Pair()
    provider = ScriptedProvider()
    await pair.start_service(provider)
    assert pair.service is not None
    text = wire.write("chat", request=ASK.to_dict())
    for _ in range(2):
        pair.service.arrived(Arrived("agent", [text], {"request_id": "same"}))
    await until(pair.service.is_idle)
    assert len(provider.requests) == 1


async def test_a_node_that_is_gone_for_good_fails_everything_at_once() -> None:
    pair = Pair()
    running = asyncio.ensure_future(pair.remote.chat(ASK))
    await asyncio.sleep(0)
    pair.stage.agent.closed("response")
    with pytest.raises(NetworkError, match="gone"):
        await running
    with pytest.raises(NetworkError, match="gone"):
        await pair.remote.chat(ASK)
    assert pair.stage.states() == ["error"]


async def test_a_silent_node_is_a_timeout_and_the_request_is_given_up() -> None:
    pair = Pair(timeout_s=0.05)
    with pytest.raises(Timeout) as raised:
        await pair.remote.chat(ASK)
    assert raised.value.timeout_s == 0.05
    assert pair.carried[-1]["op"] == "cancel"


GARBAGE: list[tuple[list[object], dict[str, Any], str]] = [
    (["{}"], {"request_id": "r"}, "no JSON object with an op"),
    (["not json"], {"request_id": "r"}, "not JSON"),
    ([], {"request_id": "r"}, "no text"),
    ([7], {"request_id": "r"}, "no text"),
    ([wire.write("chat", request={})], {}, "no request_id"),
    ([wire.write("dance")], {"request_id": "r"}, "no op 'dance'"),
    ([wire.write("chat")], {"request_id": "r"}, "has no request"),
    ([wire.write("chat", request={"messages": 7})], {"request_id": "r"}, "ChatCompletionRequest"),
    ([wire.write("embedding", request={})], {"request_id": "r"}, "EmbeddingRequest"),
    ([wire.write("count", messages=[], tools=[])], {"request_id": "r"}, "does not count"),
]


@pytest.mark.parametrize(("values", "metadata", "said"), GARBAGE)
async def test_garbage_at_the_provider_node_is_answered_with_an_error(
    values: list[object], metadata: dict[str, Any], said: str
) -> None:
    pair = Pair()
    await pair.start_service(ScriptedProvider())
    assert pair.service is not None
    pair.told.clear()
    pair.service.arrived(Arrived("agent", values, metadata))
    await until(lambda: any(out.port == "agent" for out in pair.told))
    (reply,) = [out for out in pair.told if out.port == "agent"]
    told = json.loads(str(reply.payload))
    assert told["op"] == "error"
    assert said in told["message"]
    assert reply.metadata.get("request_id") == metadata.get("request_id")
    assert (await pair.remote.chat(ASK)).content() == "Hi"


@pytest.mark.parametrize("reply", ["{}", "junk", '{"op": "chunk"}', '{"op": "chunk", "chunk": {}}'])
async def test_garbage_from_the_provider_node_is_an_error(reply: str) -> None:
    pair = Pair()
    pair.stage.put("Hi")
    await until(lambda: len(pair.carried) > 0)
    request_id = pair.carried[0]["request_id"]
    pair.stage.agent.arrived(Arrived("response", [reply], {"request_id": request_id}))
    await until(lambda: len(pair.stage.errors()) > 0)
    assert pair.stage.errors()[0]["error"] == "SerializationError"
    await pair.stage.agent.stop()


async def test_replies_go_to_the_common_output_where_an_agent_has_none_of_its_own() -> None:
    pair = Pair()
    await pair.start_service(ScriptedProvider())
    assert pair.service is not None
    text = wire.write("info", model="")
    pair.service.arrived(Arrived("stranger", [text], {"request_id": "r"}))
    await until(lambda: any(out.port == "response" for out in pair.told))


async def test_a_model_that_cannot_be_loaded_is_told_to_all() -> None:
    class Missing(ScriptedProvider):
        async def get_model_info(self, model: str) -> object:  # type: ignore[override]
            raise ModelNotFound("no such file", model="m")

    pair = Pair()
    await pair.start_service(Missing())
    states = [json.loads(str(out.payload)) for out in pair.told if out.port == "status"]
    assert [state["status"] for state in states] == ["loading", "error"]
    assert states[1]["error"] == "ModelNotFound"
    await pair.stage.agent.start()
    assert pair.stage.states() == ["loading", "error"]

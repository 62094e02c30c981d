"""Dora may lose messages and nodes may die unnoticed: answers are whole, or there is an error."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable
from typing import Any

import pytest
from mofa_gguf_node import wire
from mofa_gguf_node.ports import Arrived
from scenes import Pair, until

from mofa_gguf import ChatCompletionRequest, EmbeddingRequest, NetworkError, SerializationError
from mofa_gguf.contract import LLMError
from mofa_gguf.host.testing import ScriptedProvider

TEXT = "A whole answer of some length, in many pieces"
ASK = ChatCompletionRequest.new().user_message("Hi")


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mofa_gguf_node.remote._ASK_AGAIN_S", 0.01)


def loses_first(op: str) -> Callable[[str], bool]:
    """Loses the first message of this op."""
    left = [op]

    def loses(text: str) -> bool:
        lost = bool(left) and json.loads(text)["op"] == left[0]
        if lost:
            left.clear()
        return lost

    return loses


@pytest.mark.parametrize("seed", range(20))
async def test_answers_are_whole_though_a_third_of_all_messages_is_lost(seed: int) -> None:
    dice = random.Random(seed)
    pair = Pair(loses=lambda text: dice.random() < 0.33)
    provider = ScriptedProvider([TEXT] * 5, delay_s=0.0005)
    await pair.start_service(provider)
    answers = await asyncio.gather(*(pair.remote.chat(ASK) for _ in range(5)))
    assert [answer.content() for answer in answers] == [TEXT] * 5
    assert len(provider.requests) == 5


@pytest.mark.parametrize("op", ["chat", "chunk", "end"])
async def test_a_lost_message_is_asked_for_again(op: str) -> None:
    pair = Pair(loses=loses_first(op))
    provider = ScriptedProvider([TEXT])
    await pair.start_service(provider)
    assert (await pair.remote.chat(ASK)).content() == TEXT
    assert len(provider.requests) == 1


async def test_a_lost_result_is_asked_for_again() -> None:
    pair = Pair(loses=loses_first("result"))
    await pair.start_service(ScriptedProvider())
    answer = await pair.remote.embedding(EmbeddingRequest(model="", input=["a"]))
    assert len(answer.data) == 1


async def test_a_lost_error_is_asked_for_again() -> None:
    pair = Pair(loses=loses_first("error"))
    await pair.start_service(ScriptedProvider([LLMError("odd")]))
    with pytest.raises(LLMError, match="odd"):
        await pair.remote.chat(ASK)


async def test_a_node_that_works_for_long_is_no_silent_one() -> None:
    pair = Pair(timeout_s=0.1)
    await pair.start_service(ScriptedProvider(["Hello"], delay_s=0.3))
    assert (await pair.remote.chat(ASK)).content() == "Hello"


async def test_a_death_nobody_told_of_is_noticed_by_what_the_new_node_does_not_know() -> None:
    pair = Pair(loses=lambda text: json.loads(text)["op"] == "hello")
    await pair.start_service(ScriptedProvider([TEXT], delay_s=0.02))
    stream = pair.remote.chat_stream(ASK)
    await anext(stream)
    await pair.kill_service()
    await pair.start_service(ScriptedProvider(["Hello again"]))
    with pytest.raises(NetworkError, match="died during the answer"):
        async for _ in stream:
            pass
    assert (await pair.remote.chat(ASK)).content() == "Hello again"


async def test_what_a_dead_node_had_taken_and_not_begun_is_asked_of_the_new_one() -> None:
    pair = Pair(loses=lambda text: json.loads(text)["op"] == "hello")
    await pair.start_service(ScriptedProvider([TEXT], delay_s=60))
    running = asyncio.ensure_future(pair.remote.chat(ASK))
    await until(lambda: any('"busy"' in str(told.payload) for told in pair.told))
    await pair.kill_service()
    await pair.start_service(ScriptedProvider(["Hello"]))
    assert (await running).content() == "Hello"


async def test_a_request_that_kills_every_node_is_given_up() -> None:
    pair = Pair(timeout_s=60)
    running = asyncio.ensure_future(pair.remote.chat(ASK))
    for n_died in range(4):
        await pair.start_service(ScriptedProvider([TEXT], delay_s=60))
        await asyncio.sleep(0.03)
        assert running.done() == (n_died == 3)
        await pair.kill_service()
        pair.remote.restarted()  # dora says so, too
    with pytest.raises(NetworkError, match="died"):
        await running


async def test_what_a_dead_node_had_still_said_is_not_taken_for_the_new_ones() -> None:
    pair = Pair()
    await pair.start_service(ScriptedProvider())
    await pair.remote.chat(ASK)
    old = pair.told[-1]
    await pair.kill_service()
    await pair.start_service(ScriptedProvider([TEXT], delay_s=0.01))
    running = asyncio.ensure_future(pair.remote.chat(ASK))
    await until(lambda: pair.carried[-1]["op"] == "again")
    request_id = pair.carried[-1]["request_id"]
    stale = {**old.metadata, "request_id": request_id, "seq": 0}
    pair.remote.deliver([json.dumps({"op": "end"})], stale)
    assert (await running).content() == TEXT


async def test_a_node_taken_for_gone_is_asked_again_once_it_speaks() -> None:
    pair = Pair()
    await pair.start_service(ScriptedProvider())
    await pair.stage.agent.start()
    pair.stage.agent.closed("response")
    with pytest.raises(NetworkError, match="gone"):
        await pair.remote.chat(ASK)
    assert pair.service is not None
    await pair.service.start()
    await until(lambda: pair.stage.states()[-1] == "ready")
    assert (await pair.remote.chat(ASK)).content() == "Hi"
    await pair.stage.agent.stop()


@pytest.mark.parametrize("seq", [-1, "1", True, 1.5])
async def test_a_number_that_is_none_is_refused(seq: Any) -> None:
    pair = Pair()
    running = asyncio.ensure_future(pair.remote.chat(ASK))
    await until(lambda: len(pair.carried) > 0)
    metadata = {"request_id": pair.carried[0]["request_id"], "seq": seq}
    with pytest.raises(SerializationError, match="a number from 0 on"):
        pair.remote.deliver([wire.write("end")], metadata)
    running.cancel()


@pytest.mark.parametrize("said", ["", "1", -1, True])
async def test_an_again_without_a_number_is_answered_with_an_error(said: Any) -> None:
    pair = Pair()
    await pair.start_service(ScriptedProvider())
    pair.told.clear()
    assert pair.service is not None
    message = json.dumps({"op": "again", "from": said})
    pair.service.arrived(Arrived("agent", [message], {"request_id": "r"}))
    assert json.loads(str(pair.told[0].payload))["error"] == "SerializationError"


@pytest.mark.parametrize("replies", [None, 7, [7], [{}], [{"op": 7}]])
async def test_missed_replies_that_are_none_are_refused(replies: Any) -> None:
    pair = Pair()
    running = asyncio.ensure_future(pair.remote.chat(ASK))
    await until(lambda: len(pair.carried) > 0)
    metadata = {"request_id": pair.carried[0]["request_id"], "seq": 0}
    with pytest.raises(SerializationError, match="missed"):
        pair.remote.deliver([wire.write("missed", replies=replies)], metadata)
    running.cancel()

"""The dora side of a node, on a stand-in for dora's node that hands out prepared events."""

from __future__ import annotations

import json
import sys
import time
from collections import deque
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from mofa_gguf_node.agent import Agent
from mofa_gguf_node.runtime import Ports, run
from mofa_gguf_node.settings import AgentSettings

from mofa_gguf import LLMProvider
from mofa_gguf.host import AsyncLLMClient
from mofa_gguf.host.testing import ScriptedProvider

TIMEOUT = {"type": "ERROR", "error": "Timeout event stream error: Receiver timed out\n\nStack"}
CLOSED = {"type": "INPUT_CLOSED", "id": "query"}
NO_MORE = {"type": "STOP", "id": "ALL_INPUTS_CLOSED"}


def query(array: pa.Array) -> dict[str, Any]:
    return {"type": "INPUT", "id": "query", "value": array, "metadata": {"request_id": "r"}}


class FakeNode:
    """Prepared events, then time-outs or the end of the stream; remembers what was sent."""

    def __init__(self, *events: dict[str, Any], ends: bool) -> None:
        self.events = deque(events)
        self.ends = ends
        self.sent: list[tuple[str, list[Any], dict[str, Any]]] = []

    def node_config(self) -> dict[str, Any]:
        return {
            "inputs": {"query": {"source": "asker/query", "queue_size": 10}, "embed": "other/x"},
            "outputs": ["llm_result", "error", "embedding"],
        }

    def next(self, timeout: float) -> dict[str, Any] | None:
        if self.events:
            return self.events.popleft()
        if self.ends:
            return None
        time.sleep(0.01)
        return TIMEOUT

    def send_output(self, port: str, array: pa.Array, metadata: dict[str, Any]) -> None:
        self.sent.append((port, array.to_pylist(), metadata))

    def answers(self) -> list[str]:
        return [
            json.loads(v[0])["node_results"] for port, v, _ in self.sent if port == "llm_result"
        ]


def follow(
    node: FakeNode, monkeypatch: pytest.MonkeyPatch, provider: LLMProvider | None = None
) -> None:
    """Run an agent on the node to its end."""
    monkeypatch.setitem(sys.modules, "dora", SimpleNamespace(Node=lambda: node))

    def make(ports: Ports, send: Any) -> Agent:
        assert ports.inputs == {"query": "asker", "embed": "other"}
        client = AsyncLLMClient(provider or ScriptedProvider())
        return Agent(
            client, AgentSettings(), send=send, outputs=ports.outputs, inputs={"query": "asker"}
        )

    run(make)


def test_messages_that_an_end_has_overtaken_are_still_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    provider = ScriptedProvider(delay_s=0.01)
    node = FakeNode(CLOSED, NO_MORE, query(pa.array(["one"])), query(pa.array(["two"])), ends=True)
    follow(node, monkeypatch, provider)
    assert sorted(node.answers()) == ["one", "two"]
    assert provider.closed


def test_a_node_whose_own_inputs_are_closed_ends_once_all_is_quiet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    node = FakeNode(CLOSED, query(pa.array(["one"])), ends=False)
    follow(node, monkeypatch, ScriptedProvider(delay_s=0.02))
    assert node.answers() == ["one"]


def test_a_user_who_stops_the_dataflow_does_not_wait_for_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    provider = ScriptedProvider(["a very long answer"], delay_s=60)
    node = FakeNode(query(pa.array(["one"])), {"type": "STOP", "id": "MANUAL"}, ends=False)
    started = time.monotonic()
    follow(node, monkeypatch, provider)
    assert time.monotonic() - started < 10
    assert (node.answers(), provider.closed) == ([], True)


@pytest.mark.parametrize(
    "array",
    [pa.array([], pa.string()), pa.array([None], pa.string()), pa.array([{"a": 1}]), pa.nulls(1)],
)
def test_whatever_array_comes_is_answered(array: pa.Array, monkeypatch: pytest.MonkeyPatch) -> None:
    node = FakeNode(query(array), query(pa.array(["one"])), ends=True)
    follow(node, monkeypatch)
    assert node.answers() == ["one"]
    (error,) = [(values, about) for port, values, about in node.sent if port == "error"]
    assert json.loads(error[0][0])["error"] == "SerializationError"
    assert error[1]["request_id"] == "r"


def test_an_error_of_doras_is_logged_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    broken = {"type": "ERROR", "error": "the daemon is unwell\nStack backtrace"}
    node = FakeNode(TIMEOUT, broken, query(pa.array(["one"])), ends=True)
    follow(node, monkeypatch)
    assert node.answers() == ["one"]
    assert "the daemon is unwell" in caplog.text
    assert "Stack" not in caplog.text


def test_vectors_are_sent_as_a_list_array_of_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[pa.Array] = []
    event = {"type": "INPUT", "id": "embed", "value": pa.array(["a", "b"]), "metadata": {}}
    node = FakeNode(event, ends=True)
    monkeypatch.setattr(node, "send_output", lambda port, array, metadata: sent.append(array))
    follow(node, monkeypatch)
    (vectors,) = sent
    assert vectors.type == pa.list_(pa.float32())
    assert len(vectors) == 2


def test_a_message_that_nobody_can_take_any_more_does_not_end_the_node(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*message: object) -> None:
        raise RuntimeError("the dataflow has ended")

    node = FakeNode(query(pa.array(["one"])), query(pa.array(["two"])), ends=True)
    monkeypatch.setattr(node, "send_output", refuse)
    follow(node, monkeypatch)
    assert caplog.text.count("was not sent") == 2

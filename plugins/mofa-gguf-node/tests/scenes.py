"""Nodes without dora: an agent, and an agent with its provider node, joined in memory."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Collection
from typing import Any

from mofa_gguf_node.agent import Agent
from mofa_gguf_node.envelope import read_text
from mofa_gguf_node.ports import Arrived, Outgoing
from mofa_gguf_node.remote import RemoteProvider
from mofa_gguf_node.service import ProviderService
from mofa_gguf_node.settings import AgentSettings

from mofa_gguf import LLMProvider
from mofa_gguf.host import AsyncLLMClient

ALL_OUTPUTS = ("llm_result", "llm_stream", "status", "error", "embedding")


class Stage:
    """An agent on a provider, and all that it sent."""

    def __init__(
        self,
        provider: LLMProvider,
        *,
        outputs: Collection[str] = ALL_OUTPUTS,
        tools: Collection[Callable[..., Any]] = (),
        inputs: dict[str, str] | None = None,
        **options: Any,
    ) -> None:
        self.sent: list[Outgoing] = []
        self.agent = Agent(
            AsyncLLMClient(provider),
            AgentSettings(**options),
            send=self.sent.append,
            outputs=outputs,
            inputs=inputs or {"query": "asker"},
            tools=tools,
        )

    def put(self, *values: object, port: str = "query", **metadata: Any) -> None:
        """A message arrives."""
        self.agent.arrived(Arrived(port, list(values), metadata))

    async def ask(self, *values: object, port: str = "query", **metadata: Any) -> None:
        """A message arrives, and is dealt with."""
        self.put(*values, port=port, **metadata)
        await self.settled()

    async def settled(self) -> None:
        """Everything that arrived was dealt with."""
        async with _deadline():
            while not self.agent.is_idle():  # noqa: ASYNC110 - there is nothing to wait for
                await asyncio.sleep(0.001)

    def of(self, port: str) -> list[Outgoing]:
        """What was sent to an output."""
        return [outgoing for outgoing in self.sent if outgoing.port == port]

    def answers(self) -> list[str]:
        """The texts of ``llm_result``."""
        return [read_text([outgoing.payload]) for outgoing in self.of("llm_result")]

    def errors(self) -> list[dict[str, Any]]:
        """What ``error`` told of."""
        return [json.loads(str(outgoing.payload)) for outgoing in self.of("error")]

    def states(self) -> list[str]:
        """What ``status`` said."""
        return [json.loads(str(outgoing.payload))["status"] for outgoing in self.of("status")]


class Pair:
    """An agent and a provider node, with a wire between them that can be cut.

    ``start_service`` stands for dora's (re)start of the node. Messages of which ``loses`` says so
    do not arrive.
    """

    def __init__(
        self,
        *,
        timeout_s: float = 5.0,
        loses: Callable[[str], bool] = lambda text: False,
        **options: Any,
    ) -> None:
        self.remote = RemoteProvider(self._to_service, timeout_s=timeout_s)
        self.stage = Stage(
            self.remote,
            inputs={"query": "asker", "response": "model"},
            timeout_s=timeout_s,
            **options,
        )
        self.service: ProviderService | None = None
        self.loses = loses
        self.carried: list[dict[str, Any]] = []
        self.told: list[Outgoing] = []

    async def start_service(self, provider: LLMProvider) -> None:
        """A provider node comes up."""
        self.service = ProviderService(provider, self._to_agent, ["agent", "stats", "status"])
        await self.service.start()

    async def kill_service(self) -> None:
        """It dies without a word."""
        service, self.service = self.service, None
        assert service is not None
        service._send = lambda outgoing: None
        await service.stop()

    def _to_service(self, text: str, metadata: Any) -> None:
        self.carried.append({**json.loads(text), **metadata})
        if self.service is not None and not self.loses(text):
            self.service.arrived(Arrived("agent", [text], metadata))

    def _to_agent(self, outgoing: Outgoing) -> None:
        self.told.append(outgoing)
        if outgoing.port == "agent" and not self.loses(str(outgoing.payload)):
            arrived = Arrived("response", [outgoing.payload], outgoing.metadata)
            asyncio.get_running_loop().call_soon(self.stage.agent.arrived, arrived)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something to come true."""
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("it did not come to that")


class _deadline:  # noqa: N801 - asyncio.timeout, which Python 3.10 lacks
    async def __aenter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._handle = asyncio.get_running_loop().call_later(10, task.cancel)

    async def __aexit__(self, *exc: object) -> None:
        self._handle.cancel()

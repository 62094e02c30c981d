"""The provider node: one loaded model for all agents of a dataflow.

Every agent has an input of its own here, and its replies go to the output of the same name, or to
``response`` where there is none. Requests run side by side, so that the engine computes them
together. What was replied is kept for a while, for agents that did not hear it. ``status`` says
``loading``, ``ready`` or ``error``; ``stats`` has the engine's counts after every request.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import uuid
from collections.abc import Collection
from contextlib import aclosing
from typing import Any

from mofa_gguf.contract import (
    ChatCompletionRequest,
    ChatMessage,
    EmbeddingRequest,
    LLMError,
    LLMProvider,
    ProviderNotSupported,
    SerializationError,
    Tool,
)
from mofa_gguf.host import TokenCounter
from mofa_gguf_node import failures, wire
from mofa_gguf_node.journal import Journal, Key
from mofa_gguf_node.ports import Arrived, Metadata, Outgoing, Send
from mofa_gguf_node.status import StatusLine

log = logging.getLogger(__name__)

_COMMON_REPLY = "response"


class ProviderService:
    """A provider node's logic; owns the provider.

    Args:
        provider: what answers.
        send: takes messages to send.
        outputs: the outputs that the dataflow declares for the node.
    """

    def __init__(self, provider: LLMProvider, send: Send, outputs: Collection[str]) -> None:
        self._provider = provider
        self._send = send
        self._outputs = frozenset(outputs)
        self._status = StatusLine(send, self._outputs)
        self._instance = str(uuid.uuid4())
        self._running: dict[Key, asyncio.Task[None]] = {}
        self._journal = Journal()

    async def start(self) -> None:
        """Say hello to everybody, and load the model."""
        for port in self._outputs - {"status", "stats"}:
            self._say(port, None, {"op": "hello"})
        await self._status.follow(self._provider)

    def arrived(self, message: Arrived) -> None:
        """Begin to answer; what cannot be understood is answered with an error."""
        request_id = wire.request_id_of(message.metadata)
        try:
            if request_id is None:
                raise SerializationError("the message has no request_id in its metadata")
            told = wire.read(message.values)
            first = wire.first_missed(told)
        except SerializationError as error:
            log.warning("a message at %s is no request: %s", message.port, error)
            self._say(message.port, request_id, {"op": "error", **failures.to_dict(error)})
            return
        key = (message.port, request_id)
        if told["op"] == "cancel":
            if key in self._running:
                self._running[key].cancel()
        elif key in self._journal:  # who asks again has not heard what was said
            self._repeat(key, first)
        elif told["op"] == "again":
            self._say(message.port, request_id, {"op": "unknown"})
        else:
            self._journal.open(key)
            task = asyncio.get_running_loop().create_task(self._answer(key, told))
            self._running[key] = task
            task.add_done_callback(lambda _: self._end(key))

    def closed(self, port: str) -> None:
        """The agent at this port is gone: nobody waits for its answers."""
        for (where, _), task in list(self._running.items()):
            if where == port:
                task.cancel()

    def restarted(self, node_id: str) -> None:
        """An agent was restarted; its old requests go on, and nobody hears of them."""

    def is_idle(self) -> bool:
        """Whether no request runs."""
        return not self._running

    def is_over(self) -> bool:
        """False: it ends when all its inputs have."""
        return False

    async def stop(self) -> None:
        """Give up what runs, and close the provider."""
        for task in list(self._running.values()):
            task.cancel()
        await asyncio.gather(*self._running.values(), return_exceptions=True)
        await self._provider.close()

    async def _answer(self, key: Key, told: wire.Json) -> None:
        try:
            await self._act(key, told)
        except LLMError as error:
            self._reply(key, {"op": "error", **failures.to_dict(error)}, fin=True)
        # A provider that breaks its promise must not leave an agent waiting.
        except Exception as error:
            log.exception("the provider failed")
            broken = LLMError(f"the provider failed ({type(error).__name__}: {error})")
            self._reply(key, {"op": "error", **failures.to_dict(broken)}, fin=True)
        self._tell_stats()

    def _end(self, key: Key) -> None:
        del self._running[key]
        self._journal.close(key)

    async def _act(self, key: Key, told: wire.Json) -> None:
        op = told["op"]
        if op == "chat":
            await self._chat(key, _request(told))
            return
        if op == "embedding":
            asked = EmbeddingRequest.from_dict(_object(told, "request"))
            result: Any = (await self._provider.embedding(asked)).to_dict()
        elif op == "info":
            result = (await self._provider.get_model_info(str(told.get("model") or ""))).to_dict()
        elif op == "count":
            result = await self._count(told)
        else:
            raise SerializationError(f"there is no op {op!r}; see mofa_gguf_node.wire")
        self._reply(key, {"op": "result", "result": result}, fin=True)

    async def _chat(self, key: Key, request: ChatCompletionRequest) -> None:
        async with aclosing(self._provider.chat_stream(request)) as stream:  # type: ignore[type-var]
            async for chunk in stream:
                self._reply(key, {"op": "chunk", "chunk": chunk.to_dict()}, fin=False)
        self._reply(key, {"op": "end"}, fin=True)

    async def _count(self, told: wire.Json) -> int:
        if not isinstance(self._provider, TokenCounter):
            raise ProviderNotSupported(f"{self._provider.name()} does not count tokens")
        messages, tools = told.get("messages"), told.get("tools")
        if not isinstance(messages, list) or not isinstance(tools, list):
            raise SerializationError("a count needs lists of messages and tools")
        return await self._provider.count_tokens(
            [ChatMessage.from_dict(message) for message in messages],
            [Tool.from_dict(tool) for tool in tools] or None,
        )

    def _reply(self, key: Key, told: wire.Json, *, fin: bool) -> None:
        text = json.dumps(told, ensure_ascii=False)
        seq = self._journal.add(key, told, len(text))
        port, request_id = key
        self._put(port, request_id, text, {wire.SEQ: seq, "fin": fin})

    def _repeat(self, key: Key, first: int) -> None:
        """Say in one message what was not heard; a burst of them would be lost again."""
        port, request_id = key
        missed = self._journal.since(key, first)
        if missed:
            self._say(port, request_id, {"op": "missed", "replies": missed}, {wire.SEQ: first})
        else:
            self._say(port, request_id, {"op": "busy"})

    def _say(
        self, port: str, request_id: str | None, told: wire.Json, about: Metadata | None = None
    ) -> None:
        self._put(port, request_id, json.dumps(told, ensure_ascii=False), about or {})

    def _put(self, port: str, request_id: str | None, text: str, about: Metadata) -> None:
        where = port if port in self._outputs else _COMMON_REPLY
        whose = {} if request_id is None else {wire.REQUEST_ID: request_id}
        self._send(Outgoing(where, text, {**whose, wire.INSTANCE: self._instance, **about}))

    def _tell_stats(self) -> None:
        stats = getattr(self._provider, "stats", None)
        counted = stats() if callable(stats) and "stats" in self._outputs else None
        if counted is not None and dataclasses.is_dataclass(counted):
            self._send(Outgoing("stats", json.dumps(dataclasses.asdict(counted))))  # type: ignore[arg-type]


def _request(told: wire.Json) -> ChatCompletionRequest:
    return ChatCompletionRequest.from_dict(_object(told, "request"))


def _object(told: wire.Json, key: str) -> wire.Json:
    value = told.get(key)
    if not isinstance(value, dict):
        raise SerializationError(f"the {told['op']} has no {key}")
    return value

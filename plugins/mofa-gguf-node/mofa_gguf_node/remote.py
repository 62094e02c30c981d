"""A provider that is another node of the dataflow, perhaps on another machine.

Dora may lose messages, and a provider node may die. Replies are numbered, and what is missing is
asked for again: at once where a later one came, else every few seconds, which a living node always
answers. A node that was started anew is known by its ``instance``, by dora's word
(``restarted``), or because it does not know a request: answers that had begun are then lost, and
what nothing was heard of is asked again. ``closed`` fails everything, until the node speaks again.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from typing import Any

from mofa_gguf.contract import (
    ChatCompletionChunk,
    ChatCompletionRequest,
    ChatCompletionResponse,
    ChatMessage,
    EmbeddingRequest,
    EmbeddingResponse,
    LLMError,
    LLMProvider,
    ModelInfo,
    NetworkError,
    SerializationError,
    Timeout,
    Tool,
    gather,
)
from mofa_gguf_node import failures, wire
from mofa_gguf_node.pending import Pending

_ASK_AGAIN_S = 5.0
_N_WAITS = 3
"""At least so many waits in vain make a silent node."""

SendText = Callable[[str, Mapping[str, Any]], None]
"""Sends a text with metadata to the provider node."""


class RemoteProvider(LLMProvider):
    """Asks the provider node behind ``send``; see the module for how it is told of answers.

    Args:
        send: sends to the provider node.
        timeout_s: how long the node may be silent about a request.
        on_new_node: called when a provider node speaks that was not there before, or had been
            taken for gone.
    """

    def __init__(
        self,
        send: SendText,
        *,
        timeout_s: float,
        on_new_node: Callable[[], object] = lambda: None,
    ) -> None:
        self._send = send
        self._timeout_s = timeout_s
        self.on_new_node = on_new_node
        self._pending: dict[str, Pending] = {}
        self._gone: str | None = None
        self._instances: list[str] = []

    def name(self) -> str:
        """ "provider-node"."""
        return "provider-node"

    def supports_embedding(self) -> bool:
        """True; the node's own provider may refuse."""
        return True

    def supports_vision(self) -> bool:
        """True; the node's own provider may refuse."""
        return True

    async def chat(self, request: ChatCompletionRequest) -> ChatCompletionResponse:
        """The stream's chunks gathered up."""
        async with aclosing(self.chat_stream(request)) as stream:
            return await gather(stream)

    async def chat_stream(
        self, request: ChatCompletionRequest
    ) -> AsyncGenerator[ChatCompletionChunk, None]:
        """Answer a request piece by piece. Closing the stream cancels the request.

        Raises:
            NetworkError: the provider node died during the answer, or is gone.
            Timeout: it said nothing for too long.
            LLMError: whatever its own provider raised.
        """
        with self._request("chat", request=request.to_dict()) as (request_id, pending):
            while (reply := await self._next(request_id, pending))["op"] != "end":
                yield ChatCompletionChunk.from_dict(_part(reply, "chunk", Mapping))

    async def embedding(self, request: EmbeddingRequest) -> EmbeddingResponse:
        """One vector for each text; raises as ``chat_stream`` does."""
        result = await self._result("embedding", Mapping, request=request.to_dict())
        return EmbeddingResponse.from_dict(result)

    async def get_model_info(self, model: str) -> ModelInfo:
        """What the node's provider says of a model; raises as ``chat_stream`` does."""
        return ModelInfo.from_dict(await self._result("info", Mapping, model=model))

    async def health_check(self) -> bool:
        """Whether the node's provider describes its model."""
        try:
            await self.get_model_info("")
        except LLMError:
            return False
        return True

    async def count_tokens(
        self, messages: Sequence[ChatMessage], tools: Sequence[Tool] | None = None
    ) -> int:
        """How many tokens a prompt has; raises as ``chat_stream`` does."""
        written = [message.to_dict() for message in messages]
        offered = [tool.to_dict() for tool in tools or ()]
        count: int = await self._result("count", int, messages=written, tools=offered)
        return count

    def deliver(self, values: Sequence[object], metadata: Mapping[str, Any]) -> None:
        """Take in a message of the provider node.

        Raises:
            SerializationError: it is none of the protocol's.
        """
        message = wire.read(values)
        if not self._is_of_living_node(metadata.get(wire.INSTANCE)):
            return
        if self._gone is not None:
            self._gone = None
            self.on_new_node()
        request_id = wire.request_id_of(metadata) or ""
        pending = self._pending.get(request_id)
        if message["op"] == "hello":
            for each_id, each in self._pending.items():
                if not each.taken:
                    self._ask(each_id, each)
        elif pending is not None:  # what was given up is still told of for a while
            pending.last_sign_s = asyncio.get_running_loop().time()
            pending.n_unanswered = 0
            self._hear(request_id, pending, message, metadata)

    def restarted(self) -> None:
        """The provider node died and comes up again: the answers it was at are lost."""
        for pending in self._pending.values():
            self._survive(pending)

    def closed(self) -> None:
        """The provider node is gone; it is believed to be so until it speaks again."""
        self._gone = "the provider node is gone; look into its log"
        for pending in self._pending.values():
            pending.fail(NetworkError(self._gone))

    def _is_of_living_node(self, instance: object) -> bool:
        """Note who speaks; False for what a dead node had still said."""
        if not isinstance(instance, str) or instance == next(reversed(self._instances), None):
            return True
        if instance in self._instances:
            return False
        was_known = bool(self._instances)
        self._instances.append(instance)
        if was_known:
            for pending in self._pending.values():
                pending.n_deaths += 1  # here only: dora's word of it may come as well, or not
            self.restarted()
        self.on_new_node()
        return True

    def _survive(self, pending: Pending) -> bool:
        survives = pending.outlives()
        if not survives:
            pending.fail(NetworkError("the provider node died during the answer and was restarted"))
        return survives

    def _hear(
        self, request_id: str, pending: Pending, message: wire.Json, metadata: Mapping[str, Any]
    ) -> None:
        op, seq = message["op"], metadata.get(wire.SEQ, pending.n_heard)
        if isinstance(seq, bool) or not isinstance(seq, int) or seq < 0:
            raise SerializationError(f"a reply's {wire.SEQ} is {seq!r}; it is a number from 0 on")
        if op == "busy":
            pending.taken = True
        elif op == "unknown":
            if self._survive(pending):
                self._ask(request_id, pending)
        elif op == "missed":
            for number, reply in enumerate(_replies(message), seq):
                pending.take(number, reply)
        else:
            pending.take(seq, message)
        if pending.misses():
            self._ask(request_id, pending)

    def _ask(self, request_id: str, pending: Pending) -> None:
        """Ask for what was not heard: the request itself, or its replies from a number on."""
        again = wire.write("again", **{"from": pending.n_heard})
        self._send(again if pending.taken else pending.text, {wire.REQUEST_ID: request_id})

    async def _result(self, op: str, kind: type[Any], **content: Any) -> Any:
        with self._request(op, **content) as (request_id, pending):
            return _part(await self._next(request_id, pending), "result", kind)

    @contextmanager
    def _request(self, op: str, **content: Any) -> Iterator[tuple[str, Pending]]:
        if self._gone is not None:
            raise NetworkError(self._gone)
        request_id, pending = str(uuid.uuid4()), Pending(wire.write(op, **content))
        self._pending[request_id] = pending
        self._ask(request_id, pending)
        over = False
        try:
            yield request_id, pending
            over = True
        except LLMError:
            over = True
            raise
        finally:
            del self._pending[request_id]
            if not over:
                self._send(wire.write("cancel"), {wire.REQUEST_ID: request_id})

    async def _next(self, request_id: str, pending: Pending) -> wire.Json:
        reply = await self._heard(request_id, pending)
        if isinstance(reply, LLMError):
            raise reply
        if reply["op"] == "error":
            raise failures.from_dict(reply)
        return reply

    async def _heard(self, request_id: str, pending: Pending) -> wire.Json | LLMError:
        loop = asyncio.get_running_loop()
        since_s = loop.time()
        while True:
            try:
                return await pending.next(min(_ASK_AGAIN_S, self._timeout_s / _N_WAITS))
            except asyncio.TimeoutError as error:
                silent_s = loop.time() - max(pending.last_sign_s, since_s)
                pending.n_unanswered += 1
                # Time alone says nothing where this process was held up itself.
                if silent_s >= self._timeout_s and pending.n_unanswered >= _N_WAITS:
                    self._send(wire.write("cancel"), {wire.REQUEST_ID: request_id})
                    raise Timeout(
                        f"the provider node said nothing for {self._timeout_s:g} s",
                        timeout_s=self._timeout_s,
                    ) from error
            self._ask(request_id, pending)


def _part(reply: wire.Json, key: str, kind: type[Any]) -> Any:
    if not isinstance(reply.get(key), kind):
        raise SerializationError(f"the provider node's {reply['op']} has no {key}")
    return reply[key]


def _replies(message: wire.Json) -> list[wire.Json]:
    replies = _part(message, "replies", list)
    if not all(isinstance(reply, dict) and isinstance(reply.get("op"), str) for reply in replies):
        raise SerializationError("the provider node's missed replies are no objects with an op")
    return list(replies)

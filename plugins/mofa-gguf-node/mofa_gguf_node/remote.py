"""A provider that is another node of the dataflow.

What became of the provider node is told to it: ``restarted`` fails the answers that had begun, and
``deliver`` of the new instance's hello sends those again of which nothing was heard; ``closed``
fails everything, now and later. A node that says nothing for too long is a Timeout.

Messages to a node that is about to die, or comes up, can be lost, and so can its hello: a request
of which nothing was heard is sent again every now and then. The node knows it by its id.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
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

_SEND_AGAIN_S = 5.0

SendText = Callable[[str, Mapping[str, Any]], None]
"""Sends a text with metadata to the provider node."""


@dataclass
class _Pending:
    """A request under way, and what was heard of it."""

    text: str
    heard: asyncio.Queue[wire.Json | LLMError] = field(default_factory=asyncio.Queue)
    begun: bool = False


class RemoteProvider(LLMProvider):
    """Asks the provider node behind ``send``; see the module for how it is told of answers."""

    def __init__(self, send: SendText, *, timeout_s: float) -> None:
        self._send = send
        self._timeout_s = timeout_s
        self._pending: dict[str, _Pending] = {}
        self._lost: str | None = None

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
        if message["op"] == "hello":
            self._lost = None
            for request_id, pending in self._pending.items():
                if not pending.begun:
                    self._send(pending.text, {wire.REQUEST_ID: request_id})
            return
        pending_one = self._pending.get(wire.request_id_of(metadata) or "")
        if pending_one is not None:  # what was given up is still told of for a while
            pending_one.begun = True
            pending_one.heard.put_nowait(message)

    def restarted(self) -> None:
        """The provider node died and comes up again: the answers it was at are lost."""
        for pending in self._pending.values():
            if pending.begun:
                pending.heard.put_nowait(
                    NetworkError("the provider node died during the answer and was restarted")
                )

    def closed(self) -> None:
        """The provider node is gone for good."""
        self._lost = "the provider node is gone; look into its log"
        for pending in self._pending.values():
            pending.heard.put_nowait(NetworkError(self._lost))

    async def _result(self, op: str, kind: type[Any], **content: Any) -> Any:
        with self._request(op, **content) as (request_id, pending):
            return _part(await self._next(request_id, pending), "result", kind)

    @contextmanager
    def _request(self, op: str, **content: Any) -> Iterator[tuple[str, _Pending]]:
        if self._lost is not None:
            raise NetworkError(self._lost)
        request_id, pending = str(uuid.uuid4()), _Pending(wire.write(op, **content))
        self._pending[request_id] = pending
        self._send(pending.text, {wire.REQUEST_ID: request_id})
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

    async def _next(self, request_id: str, pending: _Pending) -> wire.Json:
        reply = await self._heard(request_id, pending)
        if isinstance(reply, LLMError):
            raise reply
        if reply["op"] == "error":
            raise failures.from_dict(reply)
        return reply

    async def _heard(self, request_id: str, pending: _Pending) -> wire.Json | LLMError:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout_s
        while True:
            left_s = deadline - loop.time()
            patience_s = left_s if pending.begun else min(left_s, _SEND_AGAIN_S)
            try:
                return await asyncio.wait_for(pending.heard.get(), max(patience_s, 0.001))
            except asyncio.TimeoutError as error:
                if loop.time() >= deadline:
                    self._send(wire.write("cancel"), {wire.REQUEST_ID: request_id})
                    raise Timeout(
                        f"the provider node said nothing for {self._timeout_s:g} s",
                        timeout_s=self._timeout_s,
                    ) from error
            self._send(pending.text, {wire.REQUEST_ID: request_id})


def _part(reply: wire.Json, key: str, kind: type[Any]) -> Any:
    if not isinstance(reply.get(key), kind):
        raise SerializationError(f"the provider node's {reply['op']} has no {key}")
    return reply[key]

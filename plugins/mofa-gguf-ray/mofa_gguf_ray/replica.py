"""What runs on the cluster: the engine of this package behind the methods that Serve calls.

Nothing here raises what is the requests' own: errors are sent as values, so that they arrive as
the contract's and not as Ray's.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import ray
from ray import serve

from mofa_gguf import GGUFProvider
from mofa_gguf.contract import ChatCompletionChunk, LLMError
from mofa_gguf.host.streams import closing
from mofa_gguf.settings import GGUFConfig
from mofa_gguf_ray.errors import Failure
from mofa_gguf_ray.owner import Owner
from mofa_gguf_ray.wire import BEAT_S, Delivery, Description, ReplicaReport, Work

log = logging.getLogger(__name__)

_STREAMS = frozenset({"chat_stream", "complete_stream"})
_CALLS = frozenset(
    {"chat", "embedding", "rerank", "health", "get_model_info", "tokenize", "count_tokens"}
)
_END = object()


class Replica:
    """One engine. The model is loaded before Serve sends it anything.

    A model that cannot be loaded does not end the replica, which Serve would only start again: its
    requests get the reason.
    """

    async def __init__(  # type: ignore[misc]  # Ray awaits it
        self, config: GGUFConfig, digest: str, owner: Owner | None
    ) -> None:
        self._provider = GGUFProvider(config)
        self._digest = digest
        self._owner = owner
        self._name: str = serve.get_replica_context().replica_id.unique_id
        try:
            await self._provider.load()
        except LLMError as error:
            log.warning("the model is not loaded: %s", error)

    async def work(self, work: Work) -> AsyncGenerator[Delivery, None]:
        """Do it, and tell of it as ``wire`` says. Closing this gives the work up."""
        yield Delivery(replica=self._name)
        async with _in_the_background(self._pieces(work)) as pieces:
            ended = False
            while not ended:
                delivery = await _next_delivery(pieces)
                ended = delivery.done or delivery.failure is not None
                yield delivery

    async def describe(self) -> Description:
        """What the replicas of this deployment have in common."""
        provider = self._provider
        tools, embedding = await asyncio.to_thread(
            lambda: (provider.supports_tools(), provider.supports_embedding())
        )
        return Description(
            digest=self._digest,
            default_model=provider.default_model(),
            models=tuple(provider.supported_models()),
            tools=tools,
            embedding=embedding,
        )

    def report(self) -> ReplicaReport:
        """Where it is and what it does."""
        return ReplicaReport(
            replica=self._name,
            node=ray.util.get_node_ip_address(),
            pid=os.getpid(),
            status=self._provider.status(),
            reserved=ray.get_runtime_context().get_assigned_resources(),
        )

    def check_health(self) -> None:
        """What Serve calls now and then; ends the deployment when nobody needs it any more."""
        if self._owner is not None:
            self._owner.end_if_gone(serve.get_replica_context().app_name)

    async def __del__(self) -> None:
        await self._provider.close()

    def _pieces(self, work: Work) -> AsyncIterator[Any]:
        method = getattr(self._provider, work.operation)
        options = dict(work.options)
        if work.operation in _STREAMS:
            stream: AsyncIterator[Any] = method(*work.arguments, **options)
            return stream
        assert work.operation in _CALLS
        return _once(lambda: method(*work.arguments, **options))


async def _once(call: Callable[[], Any]) -> AsyncGenerator[Any, None]:
    yield await call()


@asynccontextmanager
async def _in_the_background(
    pieces: AsyncIterator[Any],
) -> AsyncIterator[asyncio.Queue[Any]]:
    """A queue of the pieces, then of ``_END`` or a Failure; leaving the block ends the work."""
    queue: asyncio.Queue[Any] = asyncio.Queue()

    async def pump() -> None:
        try:
            async with closing(pieces) as stream:
                async for piece in stream:
                    queue.put_nowait(piece)
        except Exception as error:
            if not isinstance(error, LLMError):
                log.exception("a request failed in a way the contract does not know")
            queue.put_nowait(Failure.of(error))
        else:
            queue.put_nowait(_END)

    task = asyncio.create_task(pump())
    try:
        yield queue
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _next_delivery(queue: asyncio.Queue[Any]) -> Delivery:
    """All that is there, as soon as something is worth sending; nothing after ``BEAT_S``."""
    pieces: list[Any] = []
    try:
        while True:
            news = (
                await asyncio.wait_for(queue.get(), BEAT_S) if queue.empty() else queue.get_nowait()
            )
            if news is _END:
                return Delivery(tuple(pieces), done=True)
            if isinstance(news, Failure):
                return Delivery(tuple(pieces), failure=news)
            pieces.append(news)
            if queue.empty() and not _says_nothing(news):
                return Delivery(tuple(pieces))
    except asyncio.TimeoutError:
        return Delivery(tuple(pieces))


def _says_nothing(piece: Any) -> bool:
    """Whether a piece can wait for the next: a role, without any of the answer."""
    return (
        isinstance(piece, ChatCompletionChunk)
        and piece.usage is None
        and all(c.delta.is_empty() and c.finish_reason is None for c in piece.choices)
    )

"""Many requests at once, as the answers come: what a batch is made of."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Generic, TypeVar

from mofa_gguf.contract.errors import LLMError, RateLimited
from mofa_gguf.contract.responses import ChatCompletionResponse
from mofa_gguf.host.streams import closing

RATE_LIMIT_WAITS_S = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0)
"""How long a request of a batch waits before each new try when too many wait already."""

T = TypeVar("T")
R = TypeVar("R")


async def in_flight(
    items: Iterable[T], answer: Callable[[T], Awaitable[R]], *, limit: int
) -> AsyncGenerator[list[tuple[T, R]], None]:
    """Every item with what ``answer`` made of it, in the order of completion.

    ``limit`` of them run at any time, also while the reader works on what it got: items are taken
    from the iterable as others end, never all at once. What ended at the same time comes together.
    Closing the generator early cancels those that run, and returns when they have ended.

    Raises:
        Exception: whatever ``items`` or ``answer`` raise; the others are cancelled then.
    """
    waiting = iter(items)
    running: dict[asyncio.Future[R], T] = {}

    def fill() -> None:
        for item in islice(waiting, limit - len(running)):
            running[asyncio.ensure_future(answer(item))] = item

    try:
        fill()
        while running:
            ended, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            group = [(running.pop(future), future.result()) for future in ended]
            fill()
            yield group
    finally:
        for future in running:
            future.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def patiently(ask: Callable[[], Awaitable[R]], waits_s: Sequence[float]) -> R:
    """What ``ask`` returns, asked again while too many others wait.

    ``waits_s`` are the times before each new try, unless the error names one.

    Raises:
        LLMError: whatever ``ask`` raises; RateLimited when the tries are used up.
    """
    for wait_s in waits_s:
        try:
            return await ask()
        except RateLimited as error:
            await asyncio.sleep(error.retry_after_s or wait_s)
    return await ask()


@dataclass(frozen=True)
class BatchItem(Generic[T]):
    """One request of a batch: its place in the batch, what was asked and what came of it."""

    index: int
    conversation: T
    response: ChatCompletionResponse | None = None
    error: LLMError | None = None

    def result(self) -> ChatCompletionResponse:
        """The response. Raises the error that came instead."""
        if self.response is None:
            assert self.error is not None
            raise self.error
        return self.response


async def answer_batch(
    chat: Callable[[T], Awaitable[ChatCompletionResponse]],
    conversations: Iterable[T],
    *,
    limit: int,
) -> AsyncGenerator[BatchItem[T], None]:
    """Every conversation with its answer or error, in the order of completion."""

    async def answer(numbered: tuple[int, T]) -> BatchItem[T]:
        index, conversation = numbered
        try:
            response = await patiently(lambda: chat(conversation), RATE_LIMIT_WAITS_S)
        except LLMError as error:
            return BatchItem(index, conversation, error=error)
        return BatchItem(index, conversation, response)

    async with closing(in_flight(enumerate(conversations), answer, limit=limit)) as groups:
        async for group in groups:
            for _, item in group:
                yield item

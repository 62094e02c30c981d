"""Many requests at once, as the answers come: what a batch is made of."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from itertools import islice
from typing import TypeVar

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

"""Calls and streams as tasks of an event loop that another thread can have cancelled.

A job is cancelled as asyncio cancels a task: once. anyio's own cancel scopes would cancel every
later await as well, and with it the cleaning up of a stream's ``finally``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Generic, TypeVar

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream

T = TypeVar("T")


class RunningJobs:
    """The jobs that run, or none any more; touched in the loop's thread only."""

    def __init__(self) -> None:
        self._jobs: set[Job[Any]] = set()
        self._stopped = False

    def add(self, job: Job[Any]) -> None:
        """Count a job that begins; one that begins too late is cancelled at once."""
        self._jobs.add(job)
        if self._stopped:
            job.cancel()

    def discard(self, job: Job[Any]) -> None:
        """Forget a job that ended."""
        self._jobs.discard(job)

    def stop(self) -> None:
        """Cancel every job, now and from now on."""
        self._stopped = True
        for job in list(self._jobs):
            job.cancel()


class Job(Generic[T]):
    """A call as one task of the loop that can be cancelled there, once."""

    def __init__(self, function: Callable[[], Awaitable[T]], jobs: RunningJobs) -> None:
        self._function = function
        self._jobs = jobs
        self._task: asyncio.Task[Any] | None = None
        self._cancelled = False

    async def run(self) -> T:
        """Await the function; among the running jobs meanwhile."""
        if self._cancelled:
            raise asyncio.CancelledError
        self._task = asyncio.current_task()
        self._jobs.add(self)
        try:
            return await self._function()
        finally:
            self._jobs.discard(self)
            self._task = None

    def cancel(self) -> None:
        """Cancel the task, begun or not; called in the loop's thread.

        Only the first call does: a second would disturb the task's cleaning up.
        """
        if self._task is not None and not self._cancelled:
            self._task.cancel()
        self._cancelled = True


class Feed(Generic[T]):
    """An async iterator pumped item by item to a reader elsewhere.

    One task runs the iterator from its first step to its closing, so that cancel scopes and
    context variables inside it hold; the reader's calls are tasks of their own.
    """

    def __init__(self, open_stream: Callable[[], AsyncIterator[T]]) -> None:
        self._open_stream = open_stream
        self._opened = asyncio.Event()
        self._receive: MemoryObjectReceiveStream[T] | None = None

    async def pump(self) -> None:
        """Hand over every item as the reader asks for it, then close the iterator."""
        send, self._receive = anyio.create_memory_object_stream[T](0)
        with self._receive, send:
            self._opened.set()
            stream = self._open_stream()
            try:
                async for item in stream:
                    await send.send(item)
            finally:
                await close_stream(stream)

    async def next(self) -> T:
        """The next item. Raises ``anyio.EndOfStream`` when the pump has ended."""
        await self._opened.wait()
        assert self._receive is not None
        try:
            return await self._receive.receive()
        except anyio.ClosedResourceError as error:
            raise anyio.EndOfStream from error


async def close_stream(stream: AsyncIterator[Any]) -> None:
    """Close an async iterator that can be closed, as generators can."""
    aclose = getattr(stream, "aclose", None)
    if aclose is not None:
        await aclose()

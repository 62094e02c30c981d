"""The two ends of a request's stream of events: the engine's outbox and the caller's iterator."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from queue import Empty, SimpleQueue

from mofa_gguf.engine.errors import EngineClosed
from mofa_gguf.engine.requests.request import Event, FinishEvent


class Outbox:
    """The engine's end: events go in here. Knows nothing of who reads them.

    The engine holds this and not the reader's end, so that a reader that is dropped is noticed.
    """

    def __init__(self) -> None:
        # Not a Condition: its notifying takes ten times as long, at every token.
        self.events: SimpleQueue[Event | BaseException] = SimpleQueue()
        self.wake: Callable[[], None] | None = None
        """Called behind every event, for a reader that cannot wait in a thread."""
        self.cancelled = False
        """Whether nobody wants the rest any more. Only ever becomes true."""

    def push(self, event: Event | BaseException) -> None:
        """Hand over an event (an exception ends the stream); never blocks."""
        self.events.put(event)
        wake = self.wake  # read behind the put: who sets it looks for events afterwards
        if wake is not None:
            wake()


class Generation:
    """Events of one request, from the engine's thread to one reader.

    Read it with ``for`` in a thread or ``async for`` in an event loop. The last event is a
    :class:`FinishEvent`; a failed request raises its EngineError instead. :meth:`cancel` (or
    leaving the loop through ``close``/``aclose``, or dropping the object) frees the request's
    place at the next step.
    """

    def __init__(self) -> None:
        self.outbox = Outbox()
        self._over = False
        self._pid = os.getpid()

    @property
    def cancelled(self) -> bool:
        """Whether nobody wants the rest any more."""
        return self.outbox.cancelled

    def cancel(self) -> None:
        """Ask the engine to stop; safe from any thread, may be called twice."""
        self.outbox.cancelled = True

    def __del__(self) -> None:
        self.cancel()

    def _take(self, *, block: bool) -> Event | None:
        """The next event, or None if there is none yet; raises what the engine pushed."""
        if os.getpid() != self._pid:  # before the queue, which nobody here would ever fill
            raise EngineClosed("the stream belongs to the process that asked for it, not to a fork")
        try:
            event = self.outbox.events.get(block)
        except Empty:
            return None
        if isinstance(event, BaseException):
            self._over = True
            raise event
        if isinstance(event, FinishEvent):
            self._over = True
        return event

    def __iter__(self) -> Iterator[Event]:
        try:
            while not self._over:
                event = self._take(block=True)
                assert event is not None
                yield event
        finally:
            self.cancel()

    def __aiter__(self) -> AsyncIterator[Event]:
        return self.events()

    async def events(self) -> AsyncGenerator[Event, None]:
        """The events as an async generator, whose ``aclose`` cancels the request."""
        loop = asyncio.get_running_loop()
        arrived, outbox = asyncio.Event(), self.outbox

        def wake() -> None:
            try:
                loop.call_soon_threadsafe(arrived.set)
            except RuntimeError:  # the loop was closed: nobody reads any more
                outbox.cancelled = True

        outbox.wake = wake
        try:
            while not self._over:
                arrived.clear()
                event = self._take(block=False)
                if event is not None:
                    yield event
                else:
                    await arrived.wait()
        finally:
            outbox.wake = None
            self.cancel()

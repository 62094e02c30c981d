"""The two ends of a request's stream of events: the engine's outbox and the caller's iterator."""

from __future__ import annotations

import asyncio
import os
import threading
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator

from mofa_gguf.engine.errors import EngineClosed
from mofa_gguf.engine.requests.request import Event, FinishEvent


class Outbox:
    """The engine's end: events go in here. Knows nothing of who reads them.

    The engine holds this and not the reader's end, so that a reader that is dropped is noticed.
    """

    def __init__(self) -> None:
        self.events: deque[Event | BaseException] = deque()
        self.ready = threading.Condition()
        self.wake: Callable[[], None] | None = None
        self.cancelled = False
        """Whether nobody wants the rest any more. Only ever becomes true."""

    def push(self, event: Event | BaseException) -> None:
        """Hand over an event (an exception ends the stream); never blocks."""
        with self.ready:
            self.events.append(event)
            self.ready.notify_all()
            wake = self.wake
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

    def _take(self) -> Event | None:
        """The next event, or None if there is none yet; raises what the engine pushed."""
        if os.getpid() != self._pid:  # before the lock, which nobody here would ever release
            raise EngineClosed("the stream belongs to the process that asked for it, not to a fork")
        with self.outbox.ready:
            if not self.outbox.events:
                return None
            event = self.outbox.events.popleft()
            if isinstance(event, BaseException | FinishEvent):
                self._over = True
        if isinstance(event, BaseException):
            raise event
        return event

    def __iter__(self) -> Iterator[Event]:
        try:
            while not self._over:
                event = self._take()
                if event is not None:
                    yield event
                    continue
                with self.outbox.ready:
                    if not self.outbox.events:
                        self.outbox.ready.wait()
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

        with outbox.ready:
            outbox.wake = wake
        try:
            while not self._over:
                arrived.clear()
                event = self._take()
                if event is not None:
                    yield event
                else:
                    await arrived.wait()
        finally:
            outbox.wake = None
            self.cancel()

"""The caller's end of a request: events as an iterator, sync or async."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator

from mofa_gguf.engine.request import Event, FinishEvent


class Generation:
    """Events of one request, from the engine's thread to one reader.

    Read it with ``for`` in a thread or ``async for`` in an event loop. The last event is a
    :class:`FinishEvent`; a failed request raises its EngineError instead. :meth:`cancel` (or
    leaving the loop through ``close``/``aclose``) frees the request's place at the next step.
    """

    def __init__(self) -> None:
        self._events: deque[Event | BaseException] = deque()
        self._ready = threading.Condition()
        self._wake: Callable[[], None] | None = None
        self._cancelled = threading.Event()
        self._over = False

    @property
    def cancelled(self) -> bool:
        """Whether nobody wants the rest any more."""
        return self._cancelled.is_set()

    def cancel(self) -> None:
        """Ask the engine to stop; safe from any thread, may be called twice."""
        self._cancelled.set()

    def push(self, event: Event | BaseException) -> None:
        """Called by the engine: hand over an event (an exception ends the stream)."""
        with self._ready:
            self._events.append(event)
            self._ready.notify_all()
            wake = self._wake
        if wake is not None:
            wake()

    def _take(self) -> Event | None:
        """The next event, or None if there is none yet; raises what the engine pushed."""
        with self._ready:
            if not self._events:
                return None
            event = self._events.popleft()
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
                with self._ready:
                    if not self._events:
                        self._ready.wait()
        finally:
            self.cancel()

    def __aiter__(self) -> AsyncIterator[Event]:
        return self.events()

    async def events(self) -> AsyncGenerator[Event, None]:
        """The events as an async generator, whose ``aclose`` cancels the request."""
        loop = asyncio.get_running_loop()
        arrived = asyncio.Event()

        def wake() -> None:
            try:
                loop.call_soon_threadsafe(arrived.set)
            except RuntimeError:  # the loop was closed: nobody reads any more
                self.cancel()

        with self._ready:
            self._wake = wake
        try:
            while not self._over:
                arrived.clear()
                event = self._take()
                if event is not None:
                    yield event
                else:
                    await arrived.wait()
        finally:
            self._wake = None
            self.cancel()

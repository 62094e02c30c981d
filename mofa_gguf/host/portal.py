"""An event loop in a thread of its own, for callers that have none.

``PortalThread`` starts the loop when it is first needed and carries calls into it through anyio's
blocking portal. Its thread is a daemon: a program that ends without closing it does not hang. At
the interpreter's exit, calls that still run are cancelled and given a few seconds to clean up.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from concurrent.futures import CancelledError, Future
from typing import Any, Generic, TypeVar

import anyio
from anyio.abc import TaskStatus
from anyio.from_thread import BlockingPortal

from mofa_gguf.contract.errors import Other

log = logging.getLogger(__name__)

T = TypeVar("T")

_EXIT_PATIENCE_S = 5.0


class PortalThread:
    """One event loop in one daemon thread, started lazily and stopped for good.

    ``finish`` is awaited in the loop as its last act, after every call has ended; what it raises,
    ``close`` raises.
    """

    def __init__(self, finish: Callable[[], Awaitable[None]]) -> None:
        self._finish: Callable[[], Awaitable[None]] | None = finish
        self._lock = threading.Lock()
        self._closed = False
        self._thread: threading.Thread | None = None
        self._portal: BlockingPortal | None = None
        self._stop: Callable[[], None] = lambda: None
        self._finish_error: BaseException | None = None

    def call(self, function: Callable[[], Awaitable[T]]) -> T:
        """Await ``function()`` in the loop and return its result.

        An exception in this thread meanwhile (Ctrl-C) cancels the call.

        Raises:
            Other: the loop is closed, or was closed while the call ran.
            Exception: whatever the call raises.
        """
        with self._lock:
            future = self._open_portal().start_task_soon(function)
        try:
            return future.result()
        except CancelledError as error:
            raise Other("the request was cancelled: its client was closed") from error
        except BaseException:
            future.cancel()
            raise

    def iterate(self, open_stream: Callable[[], AsyncIterator[T]]) -> Generator[T, None, None]:
        """The items of an async iterator, one at a time.

        Nothing happens before the first item is asked for. Closing the generator, or dropping it,
        cancels the iteration, and returns when the async iterator is closed.

        Raises:
            Other: the loop is closed, or was closed during the iteration.
            Exception: whatever the iterator raises.
        """
        feed = _Feed(open_stream)
        with self._lock:
            pumped, _ = self._open_portal().start_task(feed.pump)
        try:
            while True:
                try:
                    item = self.call(feed.next)
                except anyio.EndOfStream:
                    break
                yield item
            pumped.result()
        except CancelledError as error:
            raise Other("stream cancelled: its client was closed") from error
        finally:
            self._end(feed, pumped)

    def close(self) -> None:
        """Cancel what runs, await ``finish``, end the thread. May be called twice, by anybody.

        Raises:
            Exception: whatever ``finish`` raised, on the first call.
        """
        with self._lock:
            if not self._closed and self._finish is not None:
                self._open_portal()  # finish needs a loop, even when nothing was ever called
            self._closed = True
            thread, error = self._thread, None
        self.request_stop()
        if thread is not None and thread is not threading.current_thread():
            thread.join()
            error, self._finish_error = self._finish_error, None
        if error is not None:
            raise error

    def abandon(self) -> None:
        """Stop without waiting and without ``finish``; safe in a finalizer, on any thread."""
        self._finish = None
        self.request_stop()

    def request_stop(self) -> None:
        """Have the loop stop, without waiting for it."""
        self._stop()

    def join(self, timeout_s: float) -> None:
        """Wait until the thread has ended, at most this long."""
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _open_portal(self) -> BlockingPortal:
        """The running portal; called with the lock held, so that no call begins once it closes."""
        if self._closed:
            raise Other("the client is closed; make a new one")
        if self._portal is None:
            opened: Future[BlockingPortal] = Future()
            self._thread = threading.Thread(
                target=self._run, args=(opened,), name="mofa-client", daemon=True
            )
            _watch_exit(self)
            self._thread.start()
            self._portal = opened.result()
        return self._portal

    def _run(self, opened: Future[BlockingPortal]) -> None:
        try:
            anyio.run(self._serve, opened)
        finally:
            _unwatch_exit(self)

    async def _serve(self, opened: Future[BlockingPortal]) -> None:
        loop, stopping = asyncio.get_running_loop(), asyncio.Event()

        def stop() -> None:
            # Events of a loop are set on its thread; a closed loop has stopped already.
            if not loop.is_closed():
                loop.call_soon_threadsafe(stopping.set)

        async with BlockingPortal() as portal:
            self._stop = stop
            opened.set_result(portal)
            await stopping.wait()
            await portal.stop(cancel_remaining=True)
        if self._finish is not None:
            try:
                await self._finish()
            # Carried to the thread that called close, whatever it is.
            except Exception as error:  # noqa: BLE001
                log.warning("closing a client's provider failed: %s", error)
                self._finish_error = error

    def _end(self, feed: _Feed[Any], pumped: Future[None]) -> None:
        """Cancel a feed's pump and wait until its stream is closed."""
        if pumped.done():
            return
        on_loop_thread = threading.current_thread() is self._thread
        if on_loop_thread:  # the garbage collector ran here: the loop cannot wait for itself
            feed.cancel()
            return
        with self._lock:
            if not self._closed and self._portal is not None:
                self._portal.start_task_soon(feed.cancel)
        try:
            pumped.exception()
        except CancelledError:
            log.debug("a stream was cancelled by its client's end")


class _Feed(Generic[T]):
    """An async iterator pumped item by item to a reader elsewhere.

    One task runs the iterator from its first step to its closing, so that cancel scopes and
    context variables inside it hold; the reader's calls are tasks of their own.
    """

    def __init__(self, open_stream: Callable[[], AsyncIterator[T]]) -> None:
        self._open_stream = open_stream
        self._scope = anyio.CancelScope()
        self._send, self._receive = anyio.create_memory_object_stream[T](0)

    async def pump(self, *, task_status: TaskStatus[None]) -> None:
        """Hand over every item as the reader asks for it, then close the iterator."""
        with self._scope, self._receive, self._send:
            task_status.started()
            stream = self._open_stream()
            try:
                async for item in stream:
                    await self._send.send(item)
            finally:
                with anyio.CancelScope(shield=True):
                    await close_stream(stream)

    async def next(self) -> T:
        """The next item. Raises ``anyio.EndOfStream`` when the pump has ended."""
        try:
            return await self._receive.receive()
        except anyio.ClosedResourceError as error:
            raise anyio.EndOfStream from error

    def cancel(self) -> None:
        """Have the pump stop where it is."""
        self._scope.cancel()


async def close_stream(stream: AsyncIterator[Any]) -> None:
    """Close an async iterator that can be closed, as generators can."""
    aclose = getattr(stream, "aclose", None)
    if aclose is not None:
        await aclose()


_running: set[PortalThread] = set()
_running_lock = threading.Lock()
_registered_exit = False


def _watch_exit(thread: PortalThread) -> None:
    global _registered_exit
    with _running_lock:
        _running.add(thread)
        if not _registered_exit:
            _registered_exit = True
            atexit.register(_stop_all)


def _unwatch_exit(thread: PortalThread) -> None:
    with _running_lock:
        _running.discard(thread)


def _stop_all() -> None:
    with _running_lock:
        threads = list(_running)
    for thread in threads:
        thread.request_stop()
    for thread in threads:
        thread.join(_EXIT_PATIENCE_S)

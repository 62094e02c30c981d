"""An event loop in a thread of its own, for callers that have none.

``PortalThread`` starts the loop when it is first needed and carries calls into it through anyio's
blocking portal. Its thread is a daemon: a program that ends without closing it does not hang. At
the interpreter's exit, calls that still run are cancelled and given a few seconds to clean up.
A fork has the object but not the thread: it gets errors, and closes nothing.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import logging
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from concurrent.futures import CancelledError, Future, InvalidStateError
from typing import Any, TypeVar

import anyio
from anyio.from_thread import BlockingPortal

from mofa_gguf.contract.errors import Other
from mofa_gguf.host.jobs import Feed, Job, RunningJobs

log = logging.getLogger(__name__)

T = TypeVar("T")

_EXIT_PATIENCE_S = 5.0

_Opened = tuple[BlockingPortal, Callable[[], None]]
"""A loop's portal, and what stops the loop without waiting."""


class PortalThread:
    """One event loop in one daemon thread, started lazily and stopped for good.

    ``finish`` is awaited in the loop as its last act, after every call has ended; what it raises,
    ``close`` raises.
    """

    def __init__(self, finish: Callable[[], Awaitable[None]] | None = None) -> None:
        self._finish = finish
        # Held while a call is handed to the loop, so that none is handed to a loop that closes.
        # Reentrant, because the garbage collector may close a stream on a thread that holds it.
        self._lock = threading.RLock()
        self._closed = False
        self._pid = os.getpid()
        self._thread: threading.Thread | None = None
        self._portal: BlockingPortal | None = None
        self._jobs = RunningJobs()
        self._stop: Callable[[], None] = lambda: None
        self._finish_error: Exception | None = None

    def call(self, function: Callable[[], Awaitable[T]]) -> T:
        """Await ``function()`` in the loop and return its result.

        An exception in this thread meanwhile (Ctrl-C) cancels the call.

        Raises:
            Other: the loop is closed, or was closed while the call ran.
            Exception: whatever the call raises.
        """
        job = Job(function, self._jobs)
        future = self._start(job.run)
        try:
            return future.result()
        except CancelledError as error:
            raise Other("the request was cancelled: its client was closed") from error
        except BaseException:
            if not future.done():
                self._cancel(job)
            raise

    def iterate(self, open_stream: Callable[[], AsyncIterator[T]]) -> Generator[T, None, None]:
        """The items of an async iterator, one at a time.

        Nothing happens before the first item is asked for. Closing the generator, or dropping it,
        cancels the iteration, and returns when the async iterator is closed.

        Raises:
            Other: the loop is closed, or was closed during the iteration.
            Exception: whatever the iterator raises.
        """
        feed = Feed(open_stream)
        job = Job(feed.pump, self._jobs)
        pumped = self._start(job.run)
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
            if not pumped.done():
                self._cancel(job)
                self._wait(pumped)

    def close(self) -> None:
        """Cancel what runs, await ``finish``, end the thread. May be called twice, by anybody.

        Raises:
            Exception: whatever ``finish`` raised, on the first call.
        """
        if self._in_fork:
            return
        if self._on_own_thread():
            self._closed = True
            self.request_stop()
            return
        with self._lock:
            if not self._closed and self._finish is not None:
                self._open_portal()  # finish needs a loop, even when nothing was ever called
            self._closed = True
        self.request_stop()
        if self._thread is not None:
            self._thread.join()
        error, self._finish_error = self._finish_error, None
        if error is not None:
            raise error

    def abandon(self) -> None:
        """Stop without waiting and without ``finish``; safe in a finalizer, on any thread."""
        self._finish = None
        self.request_stop()

    def request_stop(self) -> None:
        """Have the loop stop, without waiting for it."""
        if not self._in_fork:
            self._stop()

    def wait_until_stopped(self, timeout_s: float) -> None:
        """Wait until the thread has ended, at most this long."""
        if self._thread is not None:
            self._thread.join(timeout_s)
        if self._finish_error is not None:
            log.warning("closing a client at exit failed: %s", self._finish_error)

    @property
    def _in_fork(self) -> bool:
        return os.getpid() != self._pid

    def _on_own_thread(self) -> bool:
        return threading.current_thread() is self._thread

    def _start(self, function: Callable[[], Awaitable[T]]) -> Future[T]:
        if self._in_fork:
            raise Other("the client belongs to the process that made it, not to a fork")
        if self._on_own_thread():
            raise Other(
                "a synchronous client was called from inside its own event loop, which would "
                "wait for itself; use AsyncLLMClient there"
            )
        with self._lock:
            return self._open_portal().start_task_soon(function)

    def _cancel(self, job: Job[Any]) -> None:
        """Cancel a job, from whatever thread, without waiting for its end."""
        if self._in_fork:
            return
        if self._on_own_thread():  # the garbage collector closed a stream here
            job.cancel()
            return
        with self._lock:
            if not self._closed and self._portal is not None:
                self._portal.start_task_soon(job.cancel)

    def _wait(self, future: Future[Any]) -> None:
        # The loop's own thread cannot wait for itself, and in a fork nothing ever comes.
        if not self._on_own_thread() and not self._in_fork:
            with contextlib.suppress(CancelledError):
                future.exception()

    def _open_portal(self) -> BlockingPortal:
        """The running portal; called with the lock held."""
        if self._closed:
            raise Other("the client is closed; make a new one")
        if self._portal is None:
            opened: Future[_Opened] = Future()
            thread = threading.Thread(
                target=self._run, args=(opened,), name="mofa-client", daemon=True
            )
            try:
                thread.start()
                opened.result()
            except BaseException:
                # Ctrl-C: where the loop is not open yet, it finds that nobody wants it, and ends.
                if opened.cancel() or opened.exception() is not None:
                    raise
                self._take(thread, opened)
                raise
            self._take(thread, opened)
        assert self._portal is not None
        return self._portal

    def _take(self, thread: threading.Thread, opened: Future[_Opened]) -> None:
        self._thread = thread
        self._portal, self._stop = opened.result()

    def _run(self, opened: Future[_Opened]) -> None:
        try:
            anyio.run(self._serve, opened)
        except BaseException as error:
            if opened.done():
                raise
            opened.set_exception(error)
        finally:
            if not opened.cancelled():
                _unwatch_exit(self)

    async def _serve(self, opened: Future[_Opened]) -> None:
        loop, stopping = asyncio.get_running_loop(), asyncio.Event()

        def stop() -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: it has stopped already
                loop.call_soon_threadsafe(stopping.set)

        async with BlockingPortal() as portal:
            try:
                opened.set_result((portal, stop))
            except InvalidStateError:  # who wanted it was interrupted
                return
            _watch_exit(self)
            await stopping.wait()
            self._jobs.stop()
        if self._finish is not None:
            try:
                await self._finish()
            except Exception as error:  # noqa: BLE001 - carried to the thread that called close
                self._finish_error = error


_running: set[PortalThread] = set()
_running_lock = threading.Lock()


def _watch_exit(portal_thread: PortalThread) -> None:
    with _running_lock:
        if not _running:
            atexit.register(_stop_all)
        _running.add(portal_thread)


def _unwatch_exit(portal_thread: PortalThread) -> None:
    with _running_lock:
        _running.discard(portal_thread)
        if not _running:
            atexit.unregister(_stop_all)


def _stop_all() -> None:
    with _running_lock:
        portal_threads = list(_running)
    for portal_thread in portal_threads:
        portal_thread.request_stop()
    for portal_thread in portal_threads:
        portal_thread.wait_until_stopped(_EXIT_PATIENCE_S)

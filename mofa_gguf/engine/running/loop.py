"""The engine's thread: takes in what was queued and steps through it until it is closed."""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Callable
from typing import TypeVar

from mofa_gguf.engine.errors import EngineClosed, EngineError, QueueFull
from mofa_gguf.engine.models.context import AbortFlag
from mofa_gguf.engine.requests.sequence import Sequence as Request
from mofa_gguf.engine.requests.tasks import SideTask
from mofa_gguf.engine.running.company import Company
from mofa_gguf.engine.running.worker import Worker

logger = logging.getLogger(__name__)

_EntryT = TypeVar("_EntryT")


class Loop:
    """Owner of the thread on which everything is computed. Its methods may be called from any.

    ``worker``: computes requests; None for a model that only embeds. ``max_entries``: most that may
    wait and run; ``max_queue`` of them wait. ``release`` is called on the thread when it ends.
    """

    def __init__(
        self,
        worker: Worker | None,
        *,
        abort: AbortFlag,
        max_entries: int,
        max_queue: int,
        release: Callable[[], None],
    ) -> None:
        self.n_requests = 0
        """Whatever was queued so far."""
        self.n_active = 0
        self.n_running = 0
        self.n_cells_cached = 0
        self.company = Company()
        self._worker = worker
        self._abort = abort
        self._max_entries = max_entries
        self._max_queue = max_queue
        self._release = release
        self._arrived: deque[Request] = deque()
        self._side_tasks: deque[SideTask] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._counted = (0, 0, 0)
        self._pid = os.getpid()
        self.thread = threading.Thread(target=self._run, name="mofa-gguf-engine", daemon=True)

    @property
    def closed(self) -> bool:
        """Whether it has ended, or was told to."""
        return self._closed

    def start(self) -> None:
        """Start the thread."""
        self.thread.start()

    def check_open(self) -> None:
        """Raises EngineClosed, in a forked process too."""
        if os.getpid() != self._pid:
            raise EngineClosed(
                "the engine belongs to the process that loaded it, not to a fork; "
                "load the model in the new process"
            )
        if self._closed:
            raise EngineClosed

    def add_request(self, request: Request) -> None:
        """Queue a request. Raises QueueFull or EngineClosed."""
        self._enqueue(self._arrived, request)

    def add_task(self, task: SideTask) -> None:
        """Queue what is no generation. Raises QueueFull or EngineClosed."""
        self._enqueue(self._side_tasks, task)

    def close(self) -> None:
        """End everything; returns when done, may be called twice."""
        if os.getpid() != self._pid:
            return  # a forked child has neither the thread nor a right to the parent's memory
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._abort.set()
        if threading.current_thread() is not self.thread:
            self.thread.join()

    def _enqueue(self, queue: deque[_EntryT], entry: _EntryT) -> None:
        self.check_open()  # before the lock too: in a fork nobody may be there to release it
        with self._changed:
            self.check_open()
            if self.n_active >= self._max_entries:
                raise QueueFull(self._max_queue)
            queue.append(entry)
            self.n_requests += 1
            self.n_active += 1
            self._changed.notify_all()

    def _run(self) -> None:
        try:
            self._step_on()
        finally:  # however that ended, nobody may wait for ever
            with self._changed:
                self._closed = True
            self._end()

    def _step_on(self) -> None:
        while self._wait_for_work():
            if self._worker is not None:
                while self._arrived:
                    self._worker.add(self._arrived.popleft())
                try:
                    self._worker.step(self._interrupted)
                # A bug must not end the thread that all wait for, nor must a library's panic.
                except BaseException as error:
                    logger.exception("a step failed in an unexpected way")
                    self._worker.start_over(EngineError(f"the engine failed: {error!r}"))
            if self._side_tasks:
                self._side_step()
            self._count()

    def _interrupted(self) -> bool:
        """Whether somebody wants something of the thread."""
        return bool(self._arrived or self._side_tasks or self._closed)

    def _wait_for_work(self) -> bool:
        """Sleep until there is something to do; False when the engine is closed."""
        with self._changed:
            while not self._closed and not self._arrived and not self._side_tasks:
                worker = self._worker
                if worker is not None and not worker.idle:
                    break
                due = worker.parking.due_in() if worker is not None else None
                if not self._changed.wait(due):
                    break
                self.company.gather(self._changed, self._arrived)
            return not self._closed

    def _side_step(self) -> None:
        """A step of what is no generation; running streams wait for it."""
        task = self._side_tasks[0]
        try:
            if not task.step():
                return
        except EngineError as error:
            task.fail(EngineClosed() if self._abort.is_set else error)
        # A bug must fail its task, not the engine; nor must what a reader's callback raises, be it
        # SystemExit, for that runs here when a future is settled.
        except BaseException as error:
            logger.exception("a task failed in an unexpected way")
            task.fail(EngineError(f"the engine failed on this task: {error!r}"))
        self._side_tasks.popleft()

    def _count(self) -> None:
        worker = self._worker
        n_requests = worker.n_requests if worker is not None else 0
        n_running = len(worker.scheduler.running) if worker is not None else 0
        n_removed = worker.n_removed if worker is not None else 0
        n_active = n_requests + len(self._arrived) + len(self._side_tasks)
        counts = (n_requests, n_running, n_removed)
        # Most steps change nothing. Who comes just now counts itself, under the lock.
        if counts == self._counted and n_active == self.n_active:
            return
        with self._changed:
            self.n_active = n_requests + len(self._arrived) + len(self._side_tasks)
            self.n_running = n_running
            self.company.note(n_requests)
            # Counting the cached cells goes through the whole tree: only when a request ended.
            if worker is not None and n_removed != self._counted[2]:
                self.n_cells_cached = worker.cache.n_evictable
            self._counted = counts

    def _end(self) -> None:
        for task in self._side_tasks:
            task.fail(EngineClosed())
        if self._worker is not None:
            for request in self._arrived:
                self._worker.add(request)
            self._worker.fail_all(EngineClosed())
            self._worker.close()
        self._release()

"""Answers to those who wait, decided under a lock and told without it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import TypeVar

T = TypeVar("T")


class Outbox:
    """Holds what futures are to be told until :meth:`send`; safe to use from several threads.

    A future's callbacks run in the thread that sets it and may do anything, also ask for the lock
    under which the answer was decided: so call :meth:`send` once that lock is given back. Futures
    that were cancelled are left alone.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[Callable[[], None]] = []

    def give(self, future: Future[T], result: T) -> None:
        """Answer with a result."""
        self._add(partial(_give, future, result))

    def fail(self, future: Future[T], error: Exception) -> None:
        """Answer with an error."""
        self._add(partial(_fail, future, error))

    def call(self, work: Callable[[], None]) -> None:
        """Not an answer, but what else must be done without the lock; it raises nothing."""
        self._add(work)

    def send(self) -> None:
        """Tell all that was put in, in that order."""
        with self._lock:
            waiting, self._waiting = self._waiting, []
        for tell in waiting:
            tell()

    def _add(self, tell: Callable[[], None]) -> None:
        with self._lock:
            self._waiting.append(tell)


def _give(future: Future[T], result: T) -> None:
    if future.set_running_or_notify_cancel():
        future.set_result(result)


def _fail(future: Future[T], error: Exception) -> None:
    if future.set_running_or_notify_cancel():
        future.set_exception(error)

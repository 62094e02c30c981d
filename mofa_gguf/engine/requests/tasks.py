"""Work for the engine's thread that is no generation."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import Any, Protocol


class SideTask(Protocol):
    """Work for the engine's thread beside generation, done step by step."""

    def step(self) -> bool:
        """Do a part; True when the task is settled."""

    def fail(self, error: BaseException) -> None:
        """Settle the task with an error."""


class CallTask:
    """One function to call on the engine's thread."""

    def __init__(self, function: Callable[[], int]) -> None:
        self.future: Future[int] = Future()
        self._function = function

    def step(self) -> bool:
        """Call the function, unless nobody waits for it any more."""
        if self.future.set_running_or_notify_cancel():
            self.future.set_result(self._function())
        return True

    def fail(self, error: BaseException) -> None:
        """Settle the future with an error."""
        settle_with(self.future, error)


def settle_with(future: Future[Any], error: BaseException) -> None:
    """Settle a future with an error, unless it is settled or cancelled already."""
    with suppress(InvalidStateError):
        future.set_exception(error)

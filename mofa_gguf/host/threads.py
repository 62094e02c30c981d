"""A blocking call in a thread of its own, awaited."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import Callable
from typing import NoReturn, TypeVar

T = TypeVar("T")


async def in_thread(function: Callable[[], T], *, name: str) -> T:
    """Await a blocking function; context variables are those of the caller.

    Cancelling the wait leaves the thread to itself. It is a daemon, unlike the threads of a pool:
    a function that never returns holds up neither the event loop's end nor the interpreter's.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Callable[[], T]] = loop.create_future()

    def deliver(outcome: Callable[[], T]) -> None:
        if not done.done():  # it is, when the waiting was cancelled
            done.set_result(outcome)

    def work() -> None:
        outcome = _outcome_of(function)
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
            loop.call_soon_threadsafe(deliver, outcome)

    context = contextvars.copy_context()
    threading.Thread(target=context.run, args=(work,), name=name, daemon=True).start()
    return (await done)()


def _outcome_of(function: Callable[[], T]) -> Callable[[], T]:
    """A function that returns what ``function`` returned, or raises what it raised.

    A future could not carry everything: it refuses StopIteration.
    """
    try:
        result = function()
    # Whatever it is belongs to the caller: a SystemExit of a thread would be lost here.
    except BaseException as error:  # noqa: BLE001
        return _raiser(error)
    return lambda: result


def _raiser(error: BaseException) -> Callable[[], NoReturn]:
    def fail() -> NoReturn:
        raise error

    return fail

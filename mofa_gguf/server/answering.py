"""Answers that end when their reader leaves: within one step of the model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from mofa_gguf.server.errors import problem_of
from mofa_gguf.server.writing import sse

T = TypeVar("T")

_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # a proxy that collects pieces would undo the streaming
]


class ClientLeft(Exception):
    """Nobody waits for this answer any more."""


async def unless_left(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The work's result. Raises ClientLeft, and cancels the work, when the client disconnects."""
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_left(request.receive))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientLeft
        return working.result()
    finally:
        await _end(working, leaving)


class EventStream(Response):
    """Server-sent events. What fails before the first of them is an answer with its own status."""

    def __init__(self, events: AsyncGenerator[bytes, None]) -> None:
        self._events = events
        self._begun = False
        self.background = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events until they end or the client disconnects."""
        # One task begins and ends the generator: cancel scopes in a provider depend on it.
        sending = asyncio.ensure_future(self._send(scope, receive, send))
        leaving = asyncio.ensure_future(_left(receive))
        try:
            await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()
        except OSError:  # the connection broke while something was sent
            pass
        finally:
            await _end(sending, leaving)

    async def _send(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self._events) as events:
            try:
                async for event in events:
                    await self._write(send, event)
            except OSError:
                raise
            except Exception as error:  # noqa: BLE001 - every request ends with an answer
                problem = problem_of(error)
                if not self._begun:
                    await problem.response()(scope, receive, send)
                    return
                await self._write(send, sse(problem.to_dict()))
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _write(self, send: Send, event: bytes) -> None:
        if not self._begun:
            self._begun = True
            await send({"type": "http.response.start", "status": 200, "headers": list(_HEADERS)})
        await send({"type": "http.response.body", "body": event, "more_body": True})


async def _left(receive: Receive) -> None:
    """Return when the client has disconnected; its request was read before."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _end(*tasks: asyncio.Future[Any]) -> None:
    """Cancel what still runs and wait for it."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

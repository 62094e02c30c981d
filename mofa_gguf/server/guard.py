"""Who may ask: the API key, and no web page that was not invited."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mofa_gguf.server.errors import HttpError
from mofa_gguf.server.metrics import HttpCounts
from mofa_gguf.server.options import ServerOptions

OPEN_TO_ALL = frozenset({"/health"})


class Guard:
    """ASGI middleware that lets through only who may ask."""

    def __init__(self, app: ASGIApp, options: ServerOptions) -> None:
        self._app = app
        self._origins = frozenset(options.cors_origins)
        key = options.api_key
        self._digest = None if key is None else _digest(key.encode())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it with 401 or 403."""
        if scope["type"] == "http":
            refusal = self._refusal(scope["path"], Headers(scope=scope))
            if refusal is not None:
                await refusal.problem.response()(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _refusal(self, path: str, headers: Headers) -> HttpError | None:
        # Browsers send the origin with whatever a page's script posts, also where the page may not
        # read the answer: without this any web page could make the model work.
        origin = headers.get("origin")
        if origin is not None and not self._origins & {origin, "*"}:
            return HttpError(
                403, f"pages of {origin} may not ask this server; see --cors-origin", code="origin"
            )
        if self._digest is None or path in OPEN_TO_ALL:
            return None
        scheme, _, key = headers.get("authorization", "").partition(" ")
        given = key.strip() if scheme.lower() == "bearer" else ""
        # Headers are read as Latin-1, byte by byte. Digests have one length, so the time that the
        # comparison takes says nothing of the key.
        if hmac.compare_digest(_digest(given.encode("latin-1")), self._digest):
            return None
        problem = "is wrong" if given else "is missing; send it as 'Authorization: Bearer KEY'"
        return HttpError(401, f"the API key {problem}", code="invalid_api_key")


class Counting:
    """ASGI middleware that counts answers by route and status."""

    def __init__(self, app: ASGIApp, counts: HttpCounts, paths: Iterable[str]) -> None:
        self._app = app
        self._counts = counts
        self._paths = frozenset(paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on and count what becomes of it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 499  # nginx's number for a client that left before its answer

        async def seen(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        self._counts.n_open += 1
        try:
            await self._app(scope, receive, seen)
        finally:
            self._counts.n_open -= 1
            # Clients can make up paths, and every label is kept for ever.
            name = scope["path"] if scope["path"] in self._paths else "other"
            self._counts.answered[name, status] += 1


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()

"""An HTTP server on loopback that behaves as badly as it is told to."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Json = dict[str, Any]


@dataclass(frozen=True)
class Reply:
    """One answer: a status, headers, and pieces of a body with a pause before each.

    ``stalls`` keeps the connection open after the last piece, saying a comment every now and then;
    ``breaks`` closes it before the body is whole.
    """

    pieces: tuple[str | bytes, ...]
    status: int = 200
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()
    stalls: bool = False
    breaks: bool = False


@dataclass
class Received:
    """One request as it came."""

    path: str
    headers: dict[str, str]
    body: Json


@dataclass
class ScriptedServer:
    """Replies in turn, the last one again and again; ``requests`` is what was asked."""

    base_url: str
    replies: list[Reply] = field(default_factory=list)
    requests: list[Received] = field(default_factory=list)
    stopping: threading.Event = field(default_factory=threading.Event)

    def says(self, *replies: Reply) -> None:
        """What the next requests get."""
        self.replies = list(replies)


def whole(message: Json | str, finish_reason: str = "stop", **more: Any) -> Reply:
    """A chat answer; text becomes an assistant's message."""
    if isinstance(message, str):
        message = {"role": "assistant", "content": message}
    choice = {"index": 0, "message": message, "finish_reason": finish_reason}
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    body = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "small",
        "choices": [choice],
        "usage": usage,
        **more,
    }
    return Reply((json.dumps(body),))


def refusal(status: int, message: str, **error: Any) -> Reply:
    """An error in OpenAI's shape."""
    headers = error.pop("headers", ())
    body = {"error": {"message": message, **error}}
    return Reply((json.dumps(body),), status=status, headers=tuple(headers))


def events(*chunks: Json | str, done: bool = True, **more: Any) -> Reply:
    """A stream of events; text goes as it is."""
    pieces = [
        chunk if isinstance(chunk, str) else f"data: {json.dumps(chunk)}\n\n" for chunk in chunks
    ]
    if done:
        pieces.append("data: [DONE]\n\n")
    return Reply(tuple(pieces), content_type="text/event-stream", **more)


def delta(finish_reason: str | None = None, index: int = 0, **news: Any) -> Json:
    """One chunk of a stream."""
    choice = {"index": index, "delta": news, "finish_reason": finish_reason}
    return {"id": "chatcmpl-1", "created": 1_700_000_000, "model": "small", "choices": [choice]}


@contextmanager
def serve() -> Iterator[ScriptedServer]:
    """A server that runs until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer({})

        def do_POST(self) -> None:
            length = int(self.headers.get("content-length", 0))
            self._answer(json.loads(self.rfile.read(length)))

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

        def _answer(self, body: Json) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            server.requests.append(Received(self.path, headers, body))
            reply = server.replies.pop(0) if len(server.replies) > 1 else server.replies[0]
            pieces = [
                piece if isinstance(piece, bytes) else piece.encode() for piece in reply.pieces
            ]
            self.close_connection = True
            try:
                self._send(reply, pieces)
            except OSError:  # the client went away, which some tests are about
                return

        def _send(self, reply: Reply, pieces: Iterable[bytes]) -> None:
            self.send_response(reply.status)
            self.send_header("content-type", reply.content_type)
            for name, value in reply.headers:
                self.send_header(name, value)
            if reply.breaks:
                self.send_header("content-length", "1000000")
            self.send_header("connection", "close")
            self.end_headers()
            for piece in pieces:
                self.wfile.write(piece)
                self.wfile.flush()
            while reply.stalls and not server.stopping.wait(0.05):
                self.wfile.write(b": still here\n\n")
                self.wfile.flush()

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server = ScriptedServer(f"http://127.0.0.1:{http.server_address[1]}/v1")
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.stopping.set()
        http.shutdown()
        thread.join()
        http.server_close()

"""A server in a thread of this process, so that tests see into its provider."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
from openai import OpenAI

from mofa_gguf import LLMProvider
from mofa_gguf.server import ServerOptions
from mofa_gguf.server.running import Server, run


@dataclass
class Served:
    """A running server."""

    provider: LLMProvider
    url: str = ""
    server: Server | None = None
    failures: list[BaseException] = field(default_factory=list)

    @property
    def address(self) -> tuple[str, int]:
        parsed = httpx.URL(self.url)
        assert parsed.port is not None
        return parsed.host, parsed.port

    def client(self, **options: Any) -> OpenAI:
        """OpenAI's client, which does not try again."""
        return OpenAI(base_url=self.url, **{"api_key": "none", "max_retries": 0, **options})

    def post(self, path: str, **options: Any) -> httpx.Response:
        """One raw request to /v1/PATH."""
        return httpx.post(f"{self.url}/{path}", timeout=20, **options)

    def get(self, path: str, **options: Any) -> httpx.Response:
        """One raw request to /PATH."""
        return httpx.get(f"{self.url.removesuffix('/v1')}/{path}", timeout=20, **options)

    def raw(self, body: bytes, path: str = "/v1/chat/completions") -> socket.socket:
        """A connection over which a request was sent; the caller reads and closes."""
        connection = socket.create_connection(self.address, timeout=20)
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        return connection


@contextmanager
def serving(provider: LLMProvider, **options: Any) -> Iterator[Served]:
    """Serve a provider; it is closed at the end."""
    served, ready = Served(provider), threading.Event()

    def on_ready(url: str) -> None:
        served.url = url
        ready.set()

    def on_server(server: Server) -> None:
        served.server = server

    def serve() -> None:
        chosen = ServerOptions(**{"port": 0, "shutdown_s": 5, **options})
        try:
            asyncio.run(run(provider, chosen, on_ready=on_ready, on_server=on_server))
        except BaseException as error:  # noqa: BLE001 - told to the test
            served.failures.append(error)
            ready.set()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        assert ready.wait(30)
        if served.failures:
            raise served.failures[0]
        yield served
    finally:
        if served.server is not None:
            served.server.stop()
        thread.join(30)
        assert not thread.is_alive()
    assert not served.failures


def eventually(condition: Callable[[], bool], timeout_s: float = 10) -> None:
    """Wait until something is so."""
    ends = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < ends, "it never came to be"
        time.sleep(0.01)

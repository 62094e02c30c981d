"""The client's connections: one pool for each event loop that asks."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from weakref import WeakKeyDictionary

import httpx
import openai

from mofa_gguf.contract import Other
from mofa_openai.settings import OpenAIConfig

_CONNECT_S = 10.0
_CLOSE_S = 5.0


class ClientPerLoop:
    """Clients of one server. A pool's sockets belong to the loop that opened them."""

    def __init__(self, config: OpenAIConfig) -> None:
        self._config = config
        self._lock = threading.Lock()
        self._clients: WeakKeyDictionary[asyncio.AbstractEventLoop, openai.AsyncOpenAI] = (
            WeakKeyDictionary()
        )
        self._closed = False

    def get(self) -> openai.AsyncOpenAI:
        """The running loop's client.

        Raises:
            Other: the provider is closed.
        """
        loop = asyncio.get_running_loop()
        with self._lock:
            if self._closed:
                raise Other("the provider is closed")
            if loop not in self._clients:
                self._clients[loop] = _make_client(self._config)
            return self._clients[loop]

    async def close(self) -> None:
        """Close every client whose loop still runs. May be called twice."""
        with self._lock:
            self._closed = True
            clients = list(self._clients.items())
            self._clients.clear()
        for loop, client in clients:
            if loop is asyncio.get_running_loop():
                await client.close()
            elif loop.is_running():
                closing = asyncio.run_coroutine_threadsafe(client.close(), loop)
                # A loop that ends meanwhile takes its sockets with it.
                with contextlib.suppress(asyncio.TimeoutError, asyncio.CancelledError):
                    await asyncio.wait_for(asyncio.wrap_future(closing), _CLOSE_S)


def _make_client(config: OpenAIConfig) -> openai.AsyncOpenAI:
    key = config.api_key.get_secret_value() if config.api_key is not None else "none"
    timeout = httpx.Timeout(config.timeout_s, connect=min(_CONNECT_S, config.timeout_s))
    return openai.AsyncOpenAI(
        api_key=key,
        base_url=config.base_url,
        organization=config.organization,
        project=config.project,
        default_headers=config.headers,
        timeout=timeout,
        max_retries=0,
    )

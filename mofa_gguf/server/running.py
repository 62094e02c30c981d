"""A server's life: load, listen, answer, stop."""

from __future__ import annotations

import contextlib
import logging
import math
import signal
import socket
import threading
from collections.abc import Callable, Iterator

import uvicorn

from mofa_gguf.contract import ConfigError, LLMProvider
from mofa_gguf.server.app import create_app
from mofa_gguf.server.options import ServerOptions
from mofa_gguf.server.providers import Loader, first_asked

logger = logging.getLogger(__name__)


class Server(uvicorn.Server):
    """uvicorn's server, which says when it listens."""

    def __init__(self, config: uvicorn.Config, on_started: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_started = on_started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say so."""
        await super().startup(sockets)
        self._on_started()

    def stop(self) -> None:
        """End as a signal would; may be called from any thread."""
        self.should_exit = True


async def run(
    provider: LLMProvider,
    options: ServerOptions,
    *,
    on_ready: Callable[[str], None] = lambda url: None,
    on_server: Callable[[Server], None] = lambda server: None,
) -> None:
    """Load the default model, serve until a signal or :meth:`Server.stop`, close the provider.

    Running answers get ``shutdown_s`` to end; then they are cancelled. Raises ConfigError for an
    address that cannot be listened on, and what loading raises.
    """
    try:
        with _listening(options) as listener:
            first = first_asked(provider)
            if isinstance(first, Loader):
                await first.load()
            url = _url(options.host, listener.getsockname()[1])
            server = Server(_config(provider, options), lambda: on_ready(url))
            on_server(server)
            with _signals_ended_here():
                await server.serve(sockets=[listener])
    finally:
        await provider.close()


def _config(provider: LLMProvider, options: ServerOptions) -> uvicorn.Config:
    return uvicorn.Config(
        create_app(provider, options),
        lifespan="off",
        ws="none",
        log_config=None,  # its records go where the program's logging sends them
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=math.ceil(options.shutdown_s),
    )


@contextlib.contextmanager
def _listening(options: ServerOptions) -> Iterator[socket.socket]:
    """A bound socket: a port in use is heard of before the model is loaded."""
    try:
        found = socket.getaddrinfo(
            options.host, options.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, kind, protocol, _, address = found[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigError(
            f"{options.host} is no address of this machine ({error.strerror})", field="host"
        ) from error
    with listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
        except OSError as error:
            raise ConfigError(
                f"cannot listen on {options.host} port {options.port} ({error.strerror}); "
                "choose another with --port",
                field="port",
            ) from error
        yield listener


@contextlib.contextmanager
def _signals_ended_here() -> Iterator[None]:
    """uvicorn raises the signal that stopped it again when it is done; it has been obeyed then."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _nothing) for number in uvicorn.server.HANDLED_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _nothing(number: int, frame: object) -> None:
    """A signal that was obeyed already."""


def _url(host: str, port: int) -> str:
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{port}/v1"

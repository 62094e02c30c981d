"""Stands between llama.cpp and a worker, so that a lost worker does not end this process.

llama.cpp's RPC client calls ``abort()`` when its connection breaks. So it never talks to the worker
itself: it talks to a guard in this process, which hands everything on. When the worker is lost the
guard answers in its place, with nothing in the answers; llama.cpp goes on and computes nonsense
until its step ends, and the engine, which asks the guard after every step, throws that away and
fails the requests. Nothing leaks and everything is freed in the ordinary way.

    llama.cpp ── connection on loopback ── guard ── network ── worker
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from collections.abc import Callable

from mofa_gguf.engine.machine.rpc_link import WorkerLink
from mofa_gguf.engine.machine.rpc_protocol import (
    HEADER,
    HELLO,
    LENGTH,
    READ_WHOLE,
    answer_size,
    receive,
    stand_in,
    without_capabilities,
)

logger = logging.getLogger(__name__)

_CHUNK = 1 << 20
_HELLO_TIMEOUT_S = 10.0


class Guard:
    """Owner of a listening socket on loopback, through which one worker is reached.

    A guard whose worker was lost stays so: a new one is needed for a worker that came back, since
    llama.cpp remembers things of an address.
    """

    def __init__(self, server: str, address: tuple[str, int]) -> None:
        self.server = server
        self._address = address
        self._lost = threading.Event()
        self._n_links = 0
        self._links: set[_Link] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"127.0.0.1:{self._listener.getsockname()[1]}"
        """Where llama.cpp connects to."""
        threading.Thread(target=self._listen, name="mofa-gguf-rpc", daemon=True).start()

    @property
    def lost(self) -> bool:
        """Whether the worker went away in the middle of something."""
        return self._lost.is_set()

    @property
    def busy(self) -> bool:
        """Whether llama.cpp is connected through it now."""
        return self._n_links > 0

    def look(self) -> bool:
        """Whether the worker went away, also while nobody wanted anything of it."""
        if any(link.is_broken() for link in tuple(self._links)):
            self._lose(ConnectionError("it went away while nothing was asked of it"))
        return self.lost

    def close(self) -> None:
        """Take no more connections; those that are there go on. May be called twice."""
        # Closing alone does not wake a thread in accept().
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _listen(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(
                target=self._serve, args=(client,), name="mofa-gguf-rpc-link", daemon=True
            ).start()

    def _serve(self, client: socket.socket) -> None:
        self._n_links += 1
        link = _Link(client, self._connect(), self._lose)
        self._links.add(link)
        try:
            link.relay()
        finally:
            self._links.remove(link)
            link.close()
            self._n_links -= 1

    def _connect(self) -> WorkerLink | None:
        try:
            return WorkerLink(self._address, timeout_s=_HELLO_TIMEOUT_S)
        except OSError as error:
            self._lose(error)
            return None

    def _lose(self, error: Exception) -> None:
        if not self._lost.is_set():
            logger.warning("the worker %s is lost: %s", self.server, error)
            self._lost.set()


class _Link:
    """One connection of llama.cpp's, with the worker's end while there is one."""

    def __init__(
        self,
        client: socket.socket,
        worker: WorkerLink | None,
        lose: Callable[[Exception], None],
    ) -> None:
        self._client = client
        self._worker = worker
        self._lose = lose
        self._buffer = memoryview(bytearray(_CHUNK))
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def relay(self) -> None:
        """Hand on requests and answers until llama.cpp closes the connection."""
        # llama.cpp sends one request after the other and waits for the answers there are.
        while True:
            try:
                self._request(*HEADER.unpack(receive(self._client, HEADER.size)))
            except OSError:  # llama.cpp's end: it is done
                return

    def is_broken(self) -> bool:
        """Whether the worker's end was closed while it was thought to be there."""
        worker = self._worker
        return worker is not None and worker.is_broken()

    def close(self) -> None:
        """Close both ends."""
        for end in (self._client, self._worker):
            if end is not None:
                end.close()

    def _request(self, command: int, n_bytes: int) -> None:
        payload = b""
        self._hand_on(HEADER.pack(command, n_bytes))
        if command in READ_WHOLE:
            payload = receive(self._client, n_bytes)
            if command == HELLO:
                payload = without_capabilities(payload)
            self._hand_on(payload)
        else:
            while n_bytes:
                n = self._client.recv_into(self._buffer, min(n_bytes, _CHUNK))
                if n == 0:
                    raise ConnectionError("llama.cpp closed the connection")
                self._hand_on(self._buffer[:n])
                n_bytes -= n
        size = answer_size(command, payload)
        if size is not None:
            self._answer(command, size)
            if command == HELLO and self._worker is not None:
                self._worker.be_patient()  # a step may take its time

    def _hand_on(self, data: bytes | memoryview) -> None:
        if self._worker is not None:
            try:
                self._worker.send(data)
            except OSError as error:
                self._drop(error)

    def _answer(self, command: int, size: int) -> None:
        """Hand on the worker's answer; what is missing of it is made up."""
        sent = 0
        begun = self._answer_begins(size)
        self._client.sendall(LENGTH.pack(size))
        if begun:
            while sent < size and self._worker is not None:
                data = self._from_worker(min(size - sent, _CHUNK))
                self._client.sendall(data)
                sent += len(data)
        if sent < size:
            self._client.sendall(stand_in(command, size)[sent:])

    def _answer_begins(self, size: int) -> bool:
        if self._worker is None:
            return False
        try:
            (claimed,) = LENGTH.unpack(self._worker.receive(LENGTH.size))
            if claimed != size:
                raise ConnectionError(f"it answered {claimed} bytes where {size} belong")
        except OSError as error:
            self._drop(error)
            return False
        return True

    def _from_worker(self, most: int) -> bytes | memoryview:
        assert self._worker is not None
        try:
            n = self._worker.receive_into(self._buffer[:most])
        except OSError as error:
            self._drop(error)
            return b""
        return self._buffer[:n]

    def _drop(self, error: OSError) -> None:
        assert self._worker is not None
        self._worker.close()
        self._worker = None
        self._lose(error)

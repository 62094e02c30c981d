"""Connections between machines that notice when nobody is there any more.

A machine that vanished (no power, no network) closes nothing: what was sent to it is sent again by
the system for a quarter of an hour, and an answer is awaited without end. A machine that is only
busy, for however long, confirms what arrives. So the confirmations are watched, where the system
tells of them (TCP_INFO of Linux), and keepalive sees to the times in which nothing is sent.
Elsewhere keepalive alone does it, and the system's own limits.

TCP_USER_TIMEOUT would be simpler, but it also ends a connection to a worker that is alive and reads
nothing for a while because it computes. A worker's own side may have it: llama.cpp reads every
answer at once.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import stat
import struct
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

_T = TypeVar("_T")

SILENCE_S = 20
"""A machine of which nothing was heard for so long is gone."""
_CHECK_S = 1.0
_UNCONFIRMED = 2
_INFO = struct.Struct("=2xBB52xI")
"""Of Linux' struct tcp_info: retransmits, probes, and milliseconds since the last confirmation."""


class WorkerLink:
    """A connection to a worker. Whatever goes wrong with it comes out as OSError.

    It waits as long as the worker's machine is there, and no longer; until :meth:`be_patient`, the
    worker itself must answer within ``timeout_s``.
    """

    def __init__(self, address: tuple[str, int], *, timeout_s: float) -> None:
        self._deadline: float | None = time.monotonic() + timeout_s
        self._socket = socket.create_connection(address, timeout=timeout_s)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        keep_alive(self._socket)
        self._socket.settimeout(_CHECK_S)

    def be_patient(self) -> None:
        """From now on an answer may take its time."""
        self._deadline = None

    def send(self, data: bytes | memoryview) -> None:
        """Send all of ``data``."""
        rest = memoryview(data)
        while rest:
            rest = rest[self._wait(partial(self._socket.send, rest)) :]

    def receive_into(self, buffer: memoryview) -> int:
        """Bytes that arrived, at least one and as many as fit."""
        n = self._wait(partial(self._socket.recv_into, buffer))
        if n == 0:
            raise ConnectionError("it closed the connection")
        return n

    def receive(self, n_bytes: int) -> bytes:
        """Exactly ``n_bytes``."""
        data = bytearray(n_bytes)
        view, at = memoryview(data), 0
        while at < n_bytes:
            at += self.receive_into(view[at:])
        return bytes(data)

    def is_broken(self) -> bool:
        """Whether the connection has ended, as far as the system knows; reads nothing."""
        events = select.poll()
        try:
            events.register(self._socket, select.POLLIN)
            return bool(events.poll(0)) and self._socket.recv(1, socket.MSG_PEEK) == b""
        except TimeoutError as error:
            return error.errno is not None  # else another thread has read what was there
        except (OSError, ValueError):  # ValueError: closed on our side
            return True

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def _wait(self, operation: Callable[[], _T]) -> _T:
        while True:
            try:
                return operation()
            except TimeoutError as error:
                if error.errno is not None:  # the system's own, of keepalive
                    raise
            if self._is_silent():
                raise TimeoutError(f"nothing was heard of its machine for {SILENCE_S} s")
            if self._deadline is not None and time.monotonic() > self._deadline:
                raise TimeoutError("it does not answer")

    def _is_silent(self) -> bool:
        if sys.platform != "linux":
            return False
        return is_silent(self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO.size))


def is_silent(tcp_info: bytes) -> bool:
    """Whether nothing was heard for long although it should have been (``struct tcp_info``).

    One thing unconfirmed says little: systems leave out answers that would be too many, and
    something may have got lost.
    """
    retransmits, probes, heard_ms = _INFO.unpack_from(tcp_info)
    unconfirmed: int = retransmits + probes
    return unconfirmed >= _UNCONFIRMED and heard_ms >= SILENCE_S * 1000


def keep_alive(end: socket.socket) -> None:
    """Have the system ask now and then whether the other machine is there, and end it if not."""
    end.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    often_s = max(1, SILENCE_S // 4)
    # macOS calls the first one ALIVE.
    for name, value in (("IDLE", often_s), ("ALIVE", often_s), ("INTVL", often_s), ("CNT", 3)):
        option = getattr(socket, f"TCP_KEEP{name}", None)
        if option is not None:
            end.setsockopt(socket.IPPROTO_TCP, option, value)


def keep_clients_alive(address: tuple[str, int], *, timeout_s: float = 600.0) -> bool:
    """Do the same for all who connect to this process at ``address``, once something listens there.

    For a listener that is not ours, ggml's: accepted connections inherit its options. Without, a
    worker waits without end for a client whose machine vanished, and takes no other. Returns
    whether a listener was found in time.
    """
    until = time.monotonic() + timeout_s
    while time.monotonic() < until:
        found = False
        for end in _sockets_at(address):
            with end, contextlib.suppress(OSError):
                keep_alive(end)
                if hasattr(socket, "TCP_USER_TIMEOUT"):
                    limit_ms = SILENCE_S * 1000
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, limit_ms)
                found = found or bool(end.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
        if found:
            return True
        time.sleep(0.01)
    return False


def _sockets_at(address: tuple[str, int]) -> list[socket.socket]:
    """This process's sockets of that local address, each as a duplicate to be closed."""
    found = []
    for entry in Path("/dev/fd").iterdir():
        with contextlib.suppress(OSError):  # closed meanwhile
            number = int(entry.name)
            if stat.S_ISSOCK(os.fstat(number).st_mode):
                found.append(socket.socket(fileno=os.dup(number)))
    for end in found:
        if end.getsockname()[:2] != address:
            end.close()
    return [end for end in found if end.fileno() >= 0]

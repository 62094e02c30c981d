"""The messages of ggml's RPC backend, as far as one must know them to stand between two ends.

Source: ggml/src/ggml-rpc/ggml-rpc.cpp, version 7. A request is a byte for the command, eight
bytes of length and as many of payload; an answer, where the command has one, is eight bytes of
length and the payload. All numbers are little-endian. A connection begins with HELLO.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass

VERSION = 7
_CAPABILITIES = bytes(24)
"""None: a relay cannot follow a connection that changes to RDMA."""
_N_TENSOR_BYTES = 296  # struct rpc_tensor
HEADER = struct.Struct("<BQ")
LENGTH = struct.Struct("<Q")

ALLOC_BUFFER, GET_ALIGNMENT, GET_MAX_SIZE, BUFFER_GET_BASE = 0, 1, 2, 3
SET_TENSOR_HASH, GET_TENSOR, COPY_TENSOR = 7, 8, 9
GET_DEVICE_MEMORY, GET_ALLOC_SIZE, HELLO, DEVICE_COUNT = 11, 13, 14, 15

# What is answered in place of a worker that is gone: well-formed, so that llama.cpp goes on (it
# ends the process on anything else), and harmless. No buffer is granted, no data is known.
_STAND_IN: dict[int, bytes] = {
    ALLOC_BUFFER: struct.pack("<QQ", 0, 0),
    GET_ALIGNMENT: LENGTH.pack(128),
    GET_MAX_SIZE: LENGTH.pack(1 << 40),
    BUFFER_GET_BASE: LENGTH.pack(1 << 40),
    SET_TENSOR_HASH: b"\1",  # "has the data already": it need not be sent
    COPY_TENSOR: b"\1",
    GET_DEVICE_MEMORY: struct.pack("<QQ", 0, 0),
    GET_ALLOC_SIZE: LENGTH.pack(0),
    HELLO: bytes([VERSION, 0, 0, 0]) + _CAPABILITIES,
    DEVICE_COUNT: struct.pack("<I", 0),
}
# Commands whose payload is short and must be read to know the answer's length, or to be changed.
READ_WHOLE = frozenset({GET_TENSOR, HELLO})


class WorkerGone(Exception):
    """The other end is gone, or does not speak this protocol."""


@dataclass(frozen=True)
class WorkerDevice:
    """One device of a worker."""

    free_bytes: int
    total_bytes: int


def answer_size(command: int, payload: bytes) -> int | None:
    """Bytes of the answer to a request; None for a command without answer."""
    if command == GET_TENSOR:
        n_bytes: int = LENGTH.unpack_from(payload, _N_TENSOR_BYTES + LENGTH.size)[0]
        return n_bytes
    answer = _STAND_IN.get(command)
    return None if answer is None else len(answer)


def stand_in(command: int, size: int) -> bytes:
    """The answer, of that many bytes, to a request that no worker will answer."""
    return _STAND_IN.get(command) or bytes(size)


def without_capabilities(payload: bytes) -> bytes:
    """A HELLO that offers no other transport than this connection."""
    return bytes(len(payload))


def ask_devices(address: tuple[str, int], *, timeout_s: float) -> list[WorkerDevice]:
    """The devices of the worker at ``address`` and their memory now.

    Raises WorkerGone, saying what is wrong: nothing listens, it is busy (a worker serves one client
    at a time), or it speaks another version.
    """
    try:
        with socket.create_connection(address, timeout=timeout_s) as link:
            answer = _ask(link, HELLO, _CAPABILITIES)
            if answer[0] != VERSION:
                raise WorkerGone(f"it speaks version {answer[0]} of the protocol, not {VERSION}")
            (count,) = struct.unpack("<I", _ask(link, DEVICE_COUNT, b""))
            devices = []
            for number in range(count):
                memory = _ask(link, GET_DEVICE_MEMORY, struct.pack("<I", number))
                devices.append(WorkerDevice(*struct.unpack("<QQ", memory)))
            return devices
    except TimeoutError as error:
        raise WorkerGone(
            f"it does not answer within {timeout_s:g} s; it may be busy, since a worker serves "
            "one program at a time"
        ) from error
    except (OSError, struct.error) as error:
        raise WorkerGone(f"it cannot be reached ({error})") from error


def _ask(link: socket.socket, command: int, payload: bytes) -> bytes:
    link.sendall(HEADER.pack(command, len(payload)) + payload)
    (n_bytes,) = LENGTH.unpack(receive(link, LENGTH.size))
    if n_bytes != answer_size(command, payload):
        raise WorkerGone("it does not speak ggml's RPC protocol")
    return receive(link, n_bytes)


def receive(link: socket.socket, n_bytes: int) -> bytes:
    """Exactly ``n_bytes``. Raises ConnectionError when the other end closes before."""
    data = bytearray(n_bytes)
    view, at = memoryview(data), 0
    while at < n_bytes:
        n = link.recv_into(view[at:])
        if n == 0:
            raise ConnectionError("the connection was closed")
        at += n
    return bytes(data)

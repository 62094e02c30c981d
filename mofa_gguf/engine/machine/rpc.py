"""Layers on other machines: ggml's RPC backend, from both sides.

A worker lends its devices to one program at a time. It has no authentication and trusts whatever it
is sent: whoever reaches its port can crash it and read what is in it, and possibly more. It belongs
on a trusted network only.
"""

from __future__ import annotations

import ctypes
import ipaddress
import logging
import socket
import threading
from collections.abc import Sequence
from dataclasses import dataclass

from mofa_gguf.engine.errors import DeviceUnavailable, InvalidOption
from mofa_gguf.engine.machine.backends import Handle, api, cpu_device, function_of, registered
from mofa_gguf.engine.machine.devices import Device, default_threads, describe, gpus
from mofa_gguf.engine.machine.rpc_absent import Absentees
from mofa_gguf.engine.machine.rpc_guard import Guard
from mofa_gguf.engine.machine.rpc_link import keep_clients_alive
from mofa_gguf.engine.machine.rpc_protocol import WorkerDevice, WorkerGone, ask_devices
from mofa_gguf.engine.native import llama

logger = logging.getLogger(__name__)

DEFAULT_PORT = 50052
_ASK_TIMEOUT_S = 5.0
_KEPT_FREE = 0.95
"""Of a worker's free memory: its own program needs some."""
NO_BACKEND = (
    "this build of llama.cpp has no RPC backend; build llama-cpp-python with "
    'CMAKE_ARGS="-DGGML_RPC=on", or build the libraries alone with tools/build_rpc.py and name '
    "their folder in LLAMA_CPP_LIB_PATH"
)

_lock = threading.Lock()
_workers: dict[str, _Worker] = {}
_absent: set[str] = set()
"""Those that did not answer when they were last to be used."""


@dataclass(frozen=True)
class _Worker:
    """A worker that was reached: its guard, and ggml's devices behind it."""

    guard: Guard
    handles: tuple[Handle, ...]


def has_rpc() -> bool:
    """Whether llama.cpp was built with the RPC backend."""
    llama()
    return bool(api().ggml_backend_reg_by_name(b"RPC"))


def worker_devices(servers: Sequence[str]) -> list[Device]:
    """The devices of the workers at these addresses ("host:port").

    One that does not answer is left out, with a warning the first time. Raises DeviceUnavailable
    where the build has no RPC backend, and InvalidOption for an address that is none.
    """
    addresses = {server: read_address(server) for server in servers}
    if servers and not has_rpc():
        raise DeviceUnavailable(NO_BACKEND)
    found = []
    with _lock:
        for server, address in addresses.items():
            try:
                found += _devices_of(server, address)
                _absent.discard(server)
            except WorkerGone as error:
                if server not in _absent:  # a plan and the load after it ask one after the other
                    logger.warning("the worker %s is not used: %s", server, error)
                _absent.add(server)
    return found


def absentees(servers: Sequence[str]) -> Absentees:
    """Those of the workers that did not answer the last :func:`worker_devices`."""
    return Absentees({each: read_address(each) for each in servers if each in _absent})


def worker_handle(name: str) -> Handle | None:
    """ggml's device of that name behind a worker, if there is one."""
    for worker in _workers.values():
        for handle in worker.handles:
            if api().ggml_backend_dev_name(handle) == name.encode():
                return handle
    return None


def guards_of(names: Sequence[str]) -> tuple[Guard, ...]:
    """The guards of those devices that are behind workers."""
    return tuple(
        worker.guard
        for worker in _workers.values()
        if any(api().ggml_backend_dev_name(h).decode() in names for h in worker.handles)
    )


def read_address(server: str) -> tuple[str, int]:
    """Host and port of "host:port". Raises InvalidOption."""
    host, colon, port = server.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise InvalidOption("rpc_servers", f"has {server!r}, which is no host:port")
    return host, int(port)


def _devices_of(server: str, address: tuple[str, int]) -> list[Device]:
    worker = _workers.get(server)
    if worker is not None and worker.guard.busy and not worker.guard.lost:
        # A model of ours is on it: it answers through the connection that is there.
        return [describe(handle, "rpc") for handle in worker.handles]
    memories = ask_devices(address, timeout_s=_ASK_TIMEOUT_S)
    if worker is None or worker.guard.lost:
        if worker is not None:
            worker.guard.close()
        worker = _workers[server] = _connect(server, address)
    if len(memories) != len(worker.handles):
        raise WorkerGone(f"it has {len(memories)} devices now, not {len(worker.handles)}")
    pairs = zip(worker.handles, memories, strict=True)
    return [_device(handle, server, memory) for handle, memory in pairs]


def _device(handle: Handle, server: str, memory: WorkerDevice) -> Device:
    name: bytes = api().ggml_backend_dev_name(handle)
    free = int(memory.free_bytes * _KEPT_FREE)
    return Device(name.decode(), f"worker {server}", "rpc", free, memory.total_bytes)


def _connect(server: str, address: tuple[str, int]) -> _Worker:
    library = api()
    registry = library.ggml_backend_reg_by_name(b"RPC")
    name = "ggml_backend_rpc_add_server"
    add = function_of(registry, name, ctypes.c_void_p, ctypes.c_char_p)
    guard = Guard(server, address)
    added = add(guard.endpoint.encode()) if add is not None else None
    if not added or guard.lost:
        guard.close()
        raise WorkerGone("it has no devices")
    count = library.ggml_backend_reg_dev_count(added)
    handles = tuple(library.ggml_backend_reg_dev_get(added, i) for i in range(count))
    return _Worker(guard, handles)


def check_host(host: str, *, allow_public: bool) -> None:
    """Raises InvalidOption for an address that others than this machine reach."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise InvalidOption("host", f"{host!r} is no address of this machine ({error})") from error
    addresses = {str(entry[4][0]).partition("%")[0] for entry in found}
    if all(ipaddress.ip_address(each).is_loopback for each in addresses) or allow_public:
        return
    raise InvalidOption(
        "host",
        f"{host} can be reached from other machines, and a worker does what anybody asks of it: "
        "there is no authentication; give --allow-public if only machines that you trust can "
        "reach it",
    )


def serve(
    host: str, port: int, *, n_threads: int | None = None, allow_public: bool = False
) -> None:
    """Lend this machine's devices to one program at a time; blocks until the process ends.

    GPUs, or the CPU where there are none. Raises DeviceUnavailable for a build without the RPC
    backend or a port that is taken, and InvalidOption.
    """
    check_host(host, allow_public=allow_public)
    if not has_rpc():
        raise DeviceUnavailable(NO_BACKEND)
    _check_port(host, port)
    start = function_of(
        api().ggml_backend_reg_by_name(b"RPC"),
        "ggml_backend_rpc_start_server",
        None,
        ctypes.c_char_p,
        ctypes.c_char_p,
        ctypes.c_size_t,
        ctypes.c_size_t,
        ctypes.POINTER(ctypes.c_void_p),
    )
    assert start is not None
    names = {device.name for device in gpus()}
    lent = [h for h in registered() if api().ggml_backend_dev_name(h).decode() in names]
    lent = lent or [cpu_device()]
    devices = (ctypes.c_void_p * len(lent))(*lent)
    threads = n_threads or default_threads()
    numbers = socket.gethostbyname(host)  # ggml takes nothing else
    threading.Thread(target=keep_clients_alive, args=((numbers, port),), daemon=True).start()
    start(f"{numbers}:{port}".encode(), None, threads, len(lent), devices)
    raise DeviceUnavailable(f"the worker on {host}:{port} ended; see what it printed")


def _check_port(host: str, port: int) -> None:
    """Raises DeviceUnavailable where nothing can listen; ggml would say so less clearly."""
    try:
        with socket.create_server((host, port)):
            pass
    except OSError as error:
        raise DeviceUnavailable(
            f"{host}:{port} cannot be listened on ({error.strerror or error}); "
            "choose another --port"
        ) from error

"""What this machine and this build of llama.cpp offer: devices, memory, cores."""

from __future__ import annotations

import ctypes
import math
import os
from typing import Literal, NamedTuple

from mofa_gguf.engine.errors import DeviceUnavailable
from mofa_gguf.engine.machine.amx import HEADER, weights_may_be_repacked
from mofa_gguf.engine.machine.backends import Handle, api, registered
from mofa_gguf.engine.machine.memory import cpu_quota, host_memory
from mofa_gguf.engine.native import llama

DeviceKind = Literal["cpu", "gpu", "igpu", "accel", "meta", "rpc"]
# ggml-backend.h, enum ggml_backend_dev_type.
_KINDS: tuple[DeviceKind, ...] = ("cpu", "gpu", "igpu", "accel", "meta")


class Device(NamedTuple):
    """One of ggml's backend devices."""

    name: str
    description: str
    kind: DeviceKind
    free_bytes: int
    total_bytes: int


def list_devices() -> list[Device]:
    """The devices in ggml's backend registry, in its order."""
    llama()
    return [describe(handle) for handle in registered()]


def describe(handle: Handle, kind: DeviceKind | None = None) -> Device:
    """A device's name, kind and memory now."""
    library = api()
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    library.ggml_backend_dev_memory(handle, ctypes.byref(free), ctypes.byref(total))
    number = library.ggml_backend_dev_type(handle)
    return Device(
        name=(library.ggml_backend_dev_name(handle) or b"").decode(),
        description=(library.ggml_backend_dev_description(handle) or b"").decode(),
        kind=kind or (_KINDS[number] if 0 <= number < len(_KINDS) else "accel"),
        free_bytes=free.value,
        total_bytes=total.value,
    )


def gpus() -> list[Device]:
    """The devices that model layers can be offloaded to."""
    return [device for device in list_devices() if device.kind in ("gpu", "igpu")]


def device_handle(name: str) -> Handle:
    """The device of that name, a worker's included. Raises DeviceUnavailable."""
    from mofa_gguf.engine.machine.rpc import (
        worker_handle,  # which lists devices through this module
    )

    handle: Handle | None = api().ggml_backend_dev_by_name(name.encode()) or worker_handle(name)
    if handle is None:
        known = ", ".join(device.name for device in list_devices())
        raise DeviceUnavailable(f"there is no device {name!r}; this build has {known}")
    return handle


def system_info() -> str:
    """llama.cpp's line on its build: CPU features and backends."""
    info: bytes = llama().llama_print_system_info()
    return info.decode().strip()


def has_broken_amx_kernels() -> bool:
    """Whether llama.cpp was built with AMX kernels that cannot be used: see ``amx``."""
    return not weights_may_be_repacked()


def compiler_flags() -> str:
    """What to build llama.cpp with, for kernels that run and run fast; the Makefile does."""
    return f"-include {HEADER} -mno-avx512fp16"


def has_half_precision_kernels() -> bool:
    """Whether attention multiplies F16 values as such: see ``kernels``."""
    from mofa_gguf.engine.machine.kernels import multiplies_in_half_precision

    return multiplies_in_half_precision()


def available_memory_bytes() -> int:
    """Memory this process can still take: the least that any limit leaves."""
    return host_memory().free_bytes


def memory_and_limit() -> tuple[int, str]:
    """Memory this process can still take, and which limit says so."""
    memory = host_memory()
    rooms = [memory.physical, *([memory.address_space] if memory.address_space else [])]
    room = min(rooms, key=lambda each: each.n_bytes)
    return room.n_bytes, room.limit


def default_threads() -> int:
    """Physical cores that this process may use: its affinity and its time quota respected."""
    import psutil

    physical = psutil.cpu_count(logical=False) or os.cpu_count() or 1
    limits = [physical]
    if hasattr(os, "sched_getaffinity"):
        limits.append(len(os.sched_getaffinity(0)))
    quota = cpu_quota()
    if quota is not None:
        limits.append(math.floor(quota))
    return max(1, min(limits))

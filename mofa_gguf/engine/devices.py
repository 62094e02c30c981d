"""What this machine and this build of llama.cpp offer: devices, memory, cores."""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

from mofa_gguf.engine.native import ggml, llama, weights_may_be_repacked

DeviceKind = Literal["cpu", "gpu", "igpu", "accel", "meta"]
# ggml-backend.h, enum ggml_backend_dev_type.
_KINDS: tuple[DeviceKind, ...] = ("cpu", "gpu", "igpu", "accel", "meta")


@dataclass(frozen=True)
class Device:
    """One of ggml's backend devices."""

    name: str
    description: str
    kind: DeviceKind
    free_bytes: int
    total_bytes: int


def list_devices() -> list[Device]:
    """The devices in ggml's backend registry, in its order."""
    llama()
    library = ggml()
    library.ggml_backend_dev_count.restype = ctypes.c_size_t
    library.ggml_backend_dev_get.restype = ctypes.c_void_p
    library.ggml_backend_dev_get.argtypes = [ctypes.c_size_t]
    for name in ("name", "description"):
        function = getattr(library, f"ggml_backend_dev_{name}")
        function.restype, function.argtypes = ctypes.c_char_p, [ctypes.c_void_p]
    library.ggml_backend_dev_type.argtypes = [ctypes.c_void_p]
    size = ctypes.POINTER(ctypes.c_size_t)
    library.ggml_backend_dev_memory.argtypes = [ctypes.c_void_p, size, size]
    library.ggml_backend_dev_memory.restype = None

    devices = []
    for index in range(library.ggml_backend_dev_count()):
        handle = library.ggml_backend_dev_get(index)
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        library.ggml_backend_dev_memory(handle, ctypes.byref(free), ctypes.byref(total))
        kind = library.ggml_backend_dev_type(handle)
        devices.append(
            Device(
                name=(library.ggml_backend_dev_name(handle) or b"").decode(),
                description=(library.ggml_backend_dev_description(handle) or b"").decode(),
                kind=_KINDS[kind] if 0 <= kind < len(_KINDS) else "accel",
                free_bytes=free.value,
                total_bytes=total.value,
            )
        )
    return devices


def gpus() -> list[Device]:
    """The devices that model layers can be offloaded to."""
    return [device for device in list_devices() if device.kind in ("gpu", "igpu")]


def system_info() -> str:
    """llama.cpp's line on its build: CPU features and backends."""
    info: bytes = llama().llama_print_system_info()
    return info.decode().strip()


def has_amx_kernels() -> bool:
    """Whether llama.cpp was built with AMX kernels, which are not used: see ``native``."""
    return not weights_may_be_repacked()


def available_memory_bytes() -> int:
    """Memory this process can still take: the system's, or what its cgroup leaves if less."""
    available: int = psutil.virtual_memory().available
    limit = _cgroup_room()
    return available if limit is None else min(available, limit)


def _cgroup_room(root: Path = Path("/sys/fs/cgroup")) -> int | None:
    # cgroup v2 keeps memory.max in the group's folder, v1 in memory/.
    for maximum, current in (
        (root / "memory.max", root / "memory.current"),
        (root / "memory/memory.limit_in_bytes", root / "memory/memory.usage_in_bytes"),
    ):
        try:
            limit = maximum.read_text().strip()
            used = int(current.read_text())
        except (OSError, ValueError):
            continue
        if limit.isdigit():
            return max(0, int(limit) - used)
    return None


def default_threads() -> int:
    """Physical cores that this process may run on (its affinity respected), at least 1."""
    physical = psutil.cpu_count(logical=False) or os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        return max(1, min(physical, len(os.sched_getaffinity(0))))
    return max(1, physical)

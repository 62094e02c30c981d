"""What may be taken now: free memory, less what models were promised and what is kept back."""

from __future__ import annotations

from collections.abc import Iterable

from mofa_gguf.engine.machine.devices import Device
from mofa_gguf.engine.machine.memory import HostMemory
from mofa_gguf.engine.planning.ledger import HOST, reserved

_MIB = 2**20
_HOST_MARGIN = 256 * _MIB
_DEVICE_MARGIN = 512 * _MIB


def host_room(memory: HostMemory) -> int:
    """Bytes of the host's pages."""
    n_bytes = memory.physical.n_bytes - reserved()
    return n_bytes - min(_HOST_MARGIN, max(0, n_bytes) // 20)


def device_room(device: Device) -> int:
    """Bytes of a device."""
    free = max(0, device.free_bytes - reserved(device.name))
    return free - min(_DEVICE_MARGIN, free // 10)


def rooms(memory: HostMemory, devices: Iterable[Device]) -> dict[str, int]:
    """Bytes of the host, its limit on address space respected, and of each device."""
    host = host_room(memory)
    if memory.address_space is not None:
        host = min(host, memory.address_space.n_bytes)
    return {HOST: max(0, host), **{device.name: device_room(device) for device in devices}}

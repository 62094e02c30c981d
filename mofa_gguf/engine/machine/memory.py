"""How much memory this process can still take, and what stands in its way.

The system's free memory, the limits of its control group (both versions) and its own limit on
address space each leave some room; the least of them counts. What goes beyond them is not refused
by the system when it is asked for, but ends the process later, or another one.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

_UNLIMITED = 2**60
"""Version 1 writes a limit near 2^63 where there is none."""


class Room(NamedTuple):
    """Bytes that one limit still leaves, and the limit in words."""

    n_bytes: int
    limit: str


class HostMemory(NamedTuple):
    """Memory that is still there for this process."""

    physical: Room
    """Pages: the system's free memory, or what the control group leaves if that is less."""
    address_space: Room | None = None
    """RLIMIT_AS, which also counts mapped files and what is reserved but never touched."""
    total_bytes: int = 0

    @property
    def free_bytes(self) -> int:
        """The least that any limit leaves."""
        rooms = [self.physical, *([self.address_space] if self.address_space else [])]
        return min(room.n_bytes for room in rooms)


def host_memory() -> HostMemory:
    """What this process can take now."""
    available, total = machine_bytes()
    physical = Room(available, "free memory of this machine")
    for room, limit in group_rooms():
        total = min(total, limit)
        if room.n_bytes < physical.n_bytes:
            physical = room
    return HostMemory(physical, _address_space(), total)


def machine_bytes(meminfo: Path = Path("/proc/meminfo")) -> tuple[int, int]:
    """Bytes that this machine has available, and has at all.

    Linux says both in a file. Where they are not in it, or do not fit together, as in some
    containers, psutil finds them out.
    """
    lines = (line.split() for line in _text(meminfo).splitlines())
    kib = {fields[0]: int(fields[1]) for fields in lines if fields[1:] and fields[1].isdigit()}
    available, total = kib.get("MemAvailable:", 0) * 2**10, kib.get("MemTotal:", 0) * 2**10
    if 0 < available <= total:
        return available, total
    import psutil  # takes longer to import than all else that a load on Linux needs of the machine

    machine = psutil.virtual_memory()
    return int(machine.available), int(machine.total)


def group_rooms(
    root: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")
) -> Iterator[tuple[Room, int]]:
    """The room and the limit of each control group that this process is in, inner ones first.

    Only groups with a memory limit. Page cache does not count as used: it gives way.
    """
    # In a container the group's path is often that of the machine outside, and the files of this
    # group lie at the root: each folder up to the root is looked at.
    for folder in dict.fromkeys(_folders(root, membership, controller="")):
        used = _number(folder / "memory.current")
        for name in ("memory.max", "memory.high"):
            limit = _number(folder / name)
            if limit is not None and used is not None:
                cache = _statistic(folder / "memory.stat", ("inactive_file", "active_file"))
                yield _room(limit, used - cache, f"the control group's {name}"), limit
    memory = root / "memory"
    for folder in dict.fromkeys(_folders(memory, membership, controller="memory")):
        used = _number(folder / "memory.usage_in_bytes")
        limit = _number(folder / "memory.limit_in_bytes")
        if limit is not None and used is not None and limit < _UNLIMITED:
            names = ("total_inactive_file", "total_active_file")
            cache = _statistic(folder / "memory.stat", names)
            yield _room(limit, used - cache, "the control group's memory limit"), limit


def cpu_quota(
    root: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")
) -> float | None:
    """Cores' worth of time that the control groups grant, or None without a quota."""
    quotas = []
    for folder in _folders(root, membership, controller=""):
        fields = _text(folder / "cpu.max").split()
        if len(fields) == 2 and fields[0].isdigit() and int(fields[1]) > 0:
            quotas.append(int(fields[0]) / int(fields[1]))
    for name in ("cpu", "cpu,cpuacct"):
        for folder in _folders(root / name, membership, controller="cpu"):
            quota = _number(folder / "cpu.cfs_quota_us")
            period = _number(folder / "cpu.cfs_period_us")
            if quota is not None and period:
                quotas.append(quota / period)
    return min(quotas, default=None)


def _room(limit: int, used: int, name: str) -> Room:
    return Room(max(0, limit - max(0, used)), f"what {name} of {limit / 2**20:,.0f} MiB leaves")


def _address_space() -> Room | None:
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return None
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY:
        return None
    import psutil

    taken = int(psutil.Process().memory_info().vms)
    words = f"what the limit on address space (ulimit -v) of {limit / 2**20:,.0f} MiB leaves"
    return Room(max(0, limit - taken), words)


def _folders(root: Path, membership: Path, *, controller: str) -> Iterator[Path]:
    """The folders of this process's group and its parents, up to ``root``."""
    if not root.is_dir():
        return
    for line in _text(membership).splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controller not in controllers.split(","):
            continue
        inside = PurePosixPath(path).relative_to("/") if path.startswith("/") else PurePosixPath()
        for part in (inside, *inside.parents):
            folder = root / part
            if ".." not in part.parts and folder.is_dir():
                yield folder
    yield root


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""


def _number(path: Path) -> int | None:
    """The number in a file; None without one ("max", or -1 for no limit)."""
    text = _text(path).strip()
    return int(text) if text.isdigit() else None


def _statistic(path: Path, names: tuple[str, ...]) -> int:
    """The sum of some lines of a ``memory.stat``."""
    values = dict(line.split(maxsplit=1) for line in _text(path).splitlines() if " " in line)
    return sum(int(values[name]) for name in names if values.get(name, "").strip().isdigit())

"""What is left for this process: the machine, its control group, its own limits."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from mofa_gguf.engine.machine import devices, memory
from mofa_gguf.engine.machine.memory import (
    cpu_quota,
    group_rooms,
    host_memory,
    machine_bytes,
)

MIB = 2**20


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def rooms(root: Path, membership: str) -> list[int]:
    (root / "membership").write_text(membership)
    return [room.n_bytes for room, _ in group_rooms(root, root / "membership")]


@pytest.mark.parametrize(
    ("files", "membership", "left"),
    [
        ({"memory.max": "1000\n", "memory.current": "400\n"}, "0::/\n", [600]),
        ({"memory.max": "max\n", "memory.current": "400\n"}, "0::/\n", []),
        # Page cache gives way, so it is not used.
        (
            {
                "memory.max": "1000",
                "memory.current": "900",
                "memory.stat": "anon 300\ninactive_file 500\nactive_file 100\n",
            },
            "0::/",
            [700],
        ),
        # Throttled beyond memory.high, ended beyond memory.max.
        ({"memory.max": "90", "memory.high": "50", "memory.current": "10"}, "0::/", [80, 40]),
        # The group itself, and what its parent leaves.
        (
            {
                "a/b/memory.max": "100",
                "a/b/memory.current": "10",
                "a/memory.max": "60",
                "a/memory.current": "20",
            },
            "0::/a/b",
            [90, 40],
        ),
        # In a container the path may be that of the machine outside: the root counts then.
        ({"memory.max": "70", "memory.current": "80"}, "0::/not/here", [0]),
        # Version 1.
        (
            {"memory/memory.limit_in_bytes": "70", "memory/memory.usage_in_bytes": "50"},
            "4:memory:/\n",
            [20],
        ),
        (
            {
                "memory/x/memory.limit_in_bytes": "9223372036854771712",
                "memory/x/memory.usage_in_bytes": "50",
            },
            "4:memory:/x\n0::/\n",
            [],
        ),
        ({"memory.max": "nonsense", "memory.current": "?"}, "0::/../..\nbroken", []),
        ({}, "", []),
    ],
)
def test_a_control_group_leaves_what_its_limits_say(
    tmp_path: Path, files: dict[str, str], membership: str, left: list[int]
) -> None:
    write(tmp_path, files)
    assert rooms(tmp_path, membership) == left


@pytest.mark.parametrize(
    ("files", "membership", "cores"),
    [
        ({"cpu.max": "150000 100000"}, "0::/", 1.5),
        ({"cpu.max": "max 100000"}, "0::/", None),
        ({"cpu/cpu.cfs_quota_us": "50000", "cpu/cpu.cfs_period_us": "100000"}, "2:cpu:/", 0.5),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, "2:cpu:/", None),
    ],
)
def test_a_control_group_grants_time(
    tmp_path: Path, files: dict[str, str], membership: str, cores: float | None
) -> None:
    write(tmp_path, {**files, "membership": membership})
    assert cpu_quota(tmp_path, tmp_path / "membership") == cores


@pytest.mark.parametrize(("quota", "threads"), [(0.5, 1), (2.9, 2), (None, 4), (64.0, 4)])
def test_threads_respect_the_quota(
    monkeypatch: pytest.MonkeyPatch, quota: float | None, threads: int
) -> None:
    monkeypatch.setattr(psutil, "cpu_count", lambda logical: 4)
    monkeypatch.setattr(devices.os, "sched_getaffinity", lambda _pid: range(8), raising=False)
    monkeypatch.setattr(devices, "cpu_quota", lambda: quota)
    assert devices.default_threads() == threads


def test_the_machines_memory_is_what_psutil_says() -> None:
    known, (available, total) = psutil.virtual_memory(), machine_bytes()
    assert total == known.total
    assert available == pytest.approx(known.available, rel=0.5)


@pytest.mark.parametrize(
    ("meminfo", "expected"),
    [
        ("MemTotal:  64 kB\nMemFree:  8 kB\nMemAvailable:  32 kB\n", (2**15, 2**16)),
        # Not told, no number, or more than there is: psutil is asked.
        ("MemTotal:  64 kB\nMemFree:  8 kB\n", (5, 7)),
        ("MemTotal:  64 kB\nMemAvailable:  many kB\n\nHugePages\n", (5, 7)),
        ("MemTotal:  64 kB\nMemAvailable:  65 kB\n", (5, 7)),
        (None, (5, 7)),
    ],
)
def test_the_systems_own_figures_count_where_they_can_be_true(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    meminfo: str | None,
    expected: tuple[int, int],
) -> None:
    if meminfo is not None:
        write(tmp_path, {"meminfo": meminfo})
    asked = SimpleNamespace(available=5, total=7)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: asked)
    assert machine_bytes(tmp_path / "meminfo") == expected


def test_the_tightest_limit_counts_and_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    tight = memory.Room(5 * MIB, "a tight group")
    wide = memory.Room(2**60, "a wide group")
    monkeypatch.setattr(memory, "group_rooms", lambda: iter([(wide, 2**60), (tight, 6 * MIB)]))
    found = host_memory()
    assert found.physical == tight
    assert found.total_bytes == 6 * MIB
    assert found.free_bytes <= 5 * MIB


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS is enforced on Linux")
def test_a_limit_on_address_space_is_seen() -> None:
    code = (
        "import resource; from mofa_gguf.engine.machine.memory import host_memory; "
        "assert host_memory().address_space is None; "
        "resource.setrlimit(resource.RLIMIT_AS, (2**31, 2**31)); "
        "space = host_memory().address_space; print(space.n_bytes, space.limit)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    n_bytes, _, words = run.stdout.partition(" ")
    assert 0 < int(n_bytes) < 2**31
    assert "ulimit -v" in words
    assert "2,048 MiB" in words

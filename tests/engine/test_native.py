"""What the machine and the library say of themselves."""

from __future__ import annotations

from pathlib import Path

import pytest

from mofa_gguf.engine import devices
from mofa_gguf.engine.devices import available_memory_bytes, default_threads, list_devices


def test_there_is_a_cpu_device() -> None:
    assert any(device.kind == "cpu" for device in list_devices())


def test_threads_respect_the_affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices.os, "sched_getaffinity", lambda _pid: {0}, raising=False)
    assert default_threads() == 1


@pytest.mark.parametrize(
    ("files", "room"),
    [
        ({"memory.max": "1000\n", "memory.current": "400\n"}, 600),
        ({"memory.max": "max\n", "memory.current": "400\n"}, None),
        ({"memory/memory.limit_in_bytes": "70", "memory/memory.usage_in_bytes": "80"}, 0),
        ({}, None),
    ],
)
def test_a_cgroup_limit_bounds_memory(
    tmp_path: Path, files: dict[str, str], room: int | None
) -> None:
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert devices._cgroup_room(tmp_path) == room


def test_available_memory_is_positive() -> None:
    assert available_memory_bytes() > 0

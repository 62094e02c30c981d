"""What the machine and the library say of themselves."""

from __future__ import annotations

import pytest

from mofa_gguf.engine.machine import devices
from mofa_gguf.engine.machine.devices import available_memory_bytes, default_threads, list_devices


def test_there_is_a_cpu_device() -> None:
    assert any(device.kind == "cpu" for device in list_devices())


def test_threads_respect_the_affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices.os, "sched_getaffinity", lambda _pid: {0}, raising=False)
    assert default_threads() == 1


def test_available_memory_is_positive() -> None:
    assert available_memory_bytes() > 0

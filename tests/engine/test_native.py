"""What the machine and the library say of themselves."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

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


def _says(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout.strip()


UNLOADABLE = """
from mofa_gguf.engine.engine import Engine
from mofa_gguf.engine.errors import LibraryUnavailable
for _ in range(2):
    try:
        Engine.load({path!r})
    except LibraryUnavailable as error:
        print(error)
"""


def test_a_library_that_is_not_there_is_said_to_be_missing_each_time(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = str(tmp_path / "nothing here")
    monkeypatch.setenv("LLAMA_CPP_LIB_PATH", folder)
    first, second = _says(UNLOADABLE.format(path=str(tiny_model))).splitlines()
    assert first == second
    assert first.startswith("llama.cpp does not load (")
    assert f"LLAMA_CPP_LIB_PATH is {folder}" in first


@pytest.mark.skipif(sys.platform != "linux", reason="limits on address space are Linux's here")
def test_a_library_that_finds_no_room_asks_for_it(tiny_model: Path) -> None:
    # Room for Python and numpy, and nothing that llama.cpp could be mapped into.
    limit = (
        "import resource, numpy, psutil, mofa_gguf.engine.engine\n"
        "room = psutil.Process().memory_info().vms + 3 * 2**20\n"
        "resource.setrlimit(resource.RLIMIT_AS, (room, room))"
    )
    first, _second = _says(limit + UNLOADABLE.format(path=str(tiny_model))).splitlines()
    assert first.endswith("raise the limit (ulimit -v)")


LOW_LEVEL = "from mofa_gguf.engine.native import llama; import sys; library = llama(); "


def test_the_low_level_api_comes_without_the_high_level_one() -> None:
    loaded = _says(LOW_LEVEL + "print('llama_cpp.llama' in sys.modules, 'jinja2' in sys.modules)")
    assert loaded == "False False"


@pytest.mark.parametrize(
    "way",
    [
        "from llama_cpp import Llama",
        "import llama_cpp; Llama = llama_cpp.Llama",
        "import llama_cpp.llama; Llama = llama_cpp.llama.Llama",
    ],
)
def test_others_get_the_whole_package_and_the_same_library(way: str) -> None:
    code = f"{LOW_LEVEL}{way}; import llama_cpp; "
    code += "print(Llama.__name__, llama_cpp.llama_cpp is library, bool(llama_cpp.__version__), "
    code += "llama_cpp.llama_token is library.llama_token, hasattr(llama_cpp, 'nothing'))"
    assert _says(code) == "Llama True True True False"


def test_a_package_that_was_imported_before_stays_as_it_is() -> None:
    code = f"import llama_cpp; {LOW_LEVEL}print(llama_cpp.llama_cpp is library, type(llama_cpp))"
    assert _says(code) == "True <class 'module'>"


def test_errors_are_heard_after_others_have_imported_the_whole_package() -> None:
    code = f"{LOW_LEVEL}from llama_cpp import Llama; "
    code += "library.llama_model_load_from_file(b'absent', library.llama_model_default_params()); "
    code += "from mofa_gguf.engine.native import take_errors; print(bool(take_errors()))"
    assert _says(code) == "True"

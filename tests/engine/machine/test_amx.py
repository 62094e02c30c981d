"""AMX kernels are used where they were compiled rightly, and only there."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from mofa_gguf.engine.machine import amx
from mofa_gguf.engine.machine.amx import HEADER, has_kernels, is_sound, weights_may_be_repacked

KERNELS = b"\0AMX is not ready to be used!\0"
DEBIAN = b"GCC: (Debian 12.2.0-14+deb12u1) 12.2.0\0"
MARK = b"mofa-gguf: whole tile configuration\0"

PROGRAM = """
#include <immintrin.h>
struct config { unsigned char palette, row, none[14]; unsigned short columns[16];
                unsigned char rows[16]; };
void load(void) {
    _Alignas(64) struct config it = {1, 0, {0}, {0x1234}, {0x56, 0x78}};
    it.columns[7] = 0x4321;
    it.rows[7] = 0x65;
    _tile_loadconfig(&it);
}
"""


def test_a_library_without_such_kernels_is_sound() -> None:
    assert is_sound(b"\x7fELF" + DEBIAN)


@pytest.mark.parametrize(
    ("compiler", "sound"),
    [
        (DEBIAN, False),
        (b"GCC: (GNU) 11.4.0", False),
        (b"GCC: (GNU) 11.5.0", True),
        (b"GCC: (GNU) 12.4.0", True),
        (b"GCC: (Ubuntu 13.2.0-4ubuntu3) 13.2.0", False),
        (b"GCC: (Ubuntu 13.3.0-6ubuntu2~24.04) 13.3.0", True),
        (b"GCC: (GNU) 14.1.1 20240507", True),
        (b"GCC: (GNU) 15.2.0", True),
        (b"GCC: (GNU) 10.5.0", False),
        (b"Ubuntu clang version 18.1.3 (1ubuntu1)", True),
        (b"GCC: (GNU) 14.1.1\0" + DEBIAN, False),
        (b"", False),
    ],
)
def test_a_library_with_them_is_known_by_its_compilers(compiler: bytes, sound: bool) -> None:
    assert is_sound(KERNELS + compiler + b"\0.shstrtab") is sound


def test_or_by_the_mark_of_our_header() -> None:
    assert is_sound(KERNELS + DEBIAN + MARK)
    assert MARK[:-1].decode() in HEADER.read_text()


def test_this_build_lays_weights_out_anew_unless_its_kernels_are_broken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(amx, "_loaded_are_sound", lambda: False)
    assert weights_may_be_repacked() is not has_kernels()
    monkeypatch.setattr(amx, "_loaded_are_sound", lambda: True)
    assert weights_may_be_repacked()


@pytest.mark.parametrize("readable", [True, False])
def test_broken_libraries_and_those_that_cannot_be_read_are_not_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, readable: bool
) -> None:
    library = tmp_path / "libggml-cpu.so"
    if readable:
        library.write_bytes(KERNELS + DEBIAN)
    monkeypatch.setattr(amx, "_loaded", lambda: iter([library]))
    amx._loaded_are_sound.cache_clear()
    try:
        assert not amx._loaded_are_sound()
    finally:
        amx._loaded_are_sound.cache_clear()


def test_the_library_in_this_process_is_found() -> None:
    has_kernels()
    assert any("ggml" in path.name for path in amx._loaded())


@pytest.fixture
def broken_compiler() -> str:
    """A C compiler that drops most of a configuration."""
    compiler = os.environ.get("CC") or shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    asked = [compiler, "-dumpfullversion"]
    version = subprocess.run(asked, capture_output=True, text=True).stdout.strip()
    if is_sound(KERNELS + f"GCC: (GNU) {version}".encode()):
        pytest.skip("the C compiler needs no help")
    return compiler


@pytest.mark.parametrize("language", ["c", "c++"])
def test_with_our_header_a_configuration_is_stored_whole(
    tmp_path: Path, broken_compiler: str, language: str
) -> None:
    source = tmp_path / "load.c"
    source.write_text(PROGRAM.replace("_Alignas", "alignas") if language == "c++" else PROGRAM)

    def stored(*flags: str) -> list[bool]:
        command = [broken_compiler, "-O2", "-mamx-tile", *flags, "-S", "-o", "-", "-x", language]
        done = subprocess.run([*command, str(source)], capture_output=True, text=True)
        if "mamx-tile" in done.stderr:
            pytest.skip("the compiler is for another processor, or knows no AMX")
        assert "ldtilecfg" in done.stdout, done.stderr
        return [str(value) in done.stdout for value in (0x1234, 0x4321, 0x7856, 0x65)]

    assert not all(stored()), "the compiler needs no help"
    assert all(stored("-include", str(HEADER)))

"""Large new memory is found among a process's mappings, and asked to be in huge pages."""

from __future__ import annotations

import mmap
import sys
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mofa_gguf.engine.engine import Engine
from mofa_gguf.engine.machine import hugepages
from mofa_gguf.engine.machine.hugepages import MIN_BYTES, HugePages, large_spans
from mofa_gguf.engine.options import EngineOptions

MAPS = """\
7f0000000000-7f0002000000 rw-p 00000000 00:00 0
7f0010000000-7f0012000000 r--p 00000000 00:00 0
7f0020000000-7f0022000000 rw-s 00000000 00:00 0
7f0030000000-7f0032000000 rw-p 00000000 00:00 0                          [heap]
7f0040000000-7f0042000000 rw-p 00000000 08:01 1234                       /a/model file.gguf
7f0050000000-7f0050001000 rw-p 00000000 00:00 0
"""
LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux's own")


def test_large_is_private_anonymous_memory_of_some_size() -> None:
    assert large_spans(MAPS) == {(0x7F0000000000, 0x7F0002000000)}


@given(
    before=st.lists(st.tuples(st.integers(0, 60), st.integers(1, 30)), max_size=4),
    now=st.tuples(st.integers(0, 60), st.integers(1, 60)),
)
def test_of_a_span_that_has_grown_only_the_new_parts_count(
    before: list[tuple[int, int]], now: tuple[int, int]
) -> None:
    unit = MIN_BYTES
    old = {(at * unit, (at + n) * unit) for at, n in before}
    span = (now[0] * unit, (now[0] + now[1]) * unit)
    found = {
        unit * i for a, b in hugepages._grown({span}, old) for i in range(a // unit, b // unit)
    }
    known = {i * unit for a, b in old for i in range(a // unit, b // unit)}
    expected = {i * unit for i in range(span[0] // unit, span[1] // unit)} - known
    assert found == (set() if span in old else expected)


@LINUX
def test_what_is_new_is_asked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(hugepages, "_advise", lambda begin, end: asked.append(end - begin) or True)
    pages = HugePages()
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    with closing(mmap.mmap(-1, 2 * MIN_BYTES, flags=flags)):
        assert pages.ask() >= 2 * MIN_BYTES
        assert sum(asked) >= 2 * MIN_BYTES
        assert pages.ask() == 0


@LINUX
@pytest.mark.parametrize("hugepages_wanted", [True, False])
def test_a_model_is_loaded_with_them_unless_told_otherwise(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, hugepages_wanted: bool
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(HugePages, "ask", lambda _: asked.append(1) or 0)
    options = EngineOptions(n_threads=1, hugepages=hugepages_wanted)
    with closing(Engine.load(tiny_model, options)):
        assert bool(asked) is hugepages_wanted


@LINUX
def test_a_refusal_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not hugepages._advise(1, 2)

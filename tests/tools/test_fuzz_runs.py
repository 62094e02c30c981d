"""Fuzz cases in children: what dies, hangs, swells or raises costs one case and is told."""

from __future__ import annotations

import functools
import os
from pathlib import Path

import pytest

from tools.fuzz_runs import Bounds, RunCase, Tally, run_in_children

BOUNDS = Bounds(passed="fine", seconds=1.0, n_bytes=64 * 2**20)


def _case(number: int, log: Path | None = None) -> tuple[str, str]:
    if number == 1:
        if log is not None:
            log.write_text("GGML_ASSERT(false) failed\n")
        os._exit(6)
    if number == 2:
        while True:
            pass
    if number == 3:
        raise ValueError("not expected")
    if number == 4:
        bytearray(b"x" * (128 * 2**20))
    return "thing", "fine" if number % 2 == 0 else "Refused"


def _set_up(log: Path | None = None) -> RunCase:
    return functools.partial(_case, log=log)


def _cannot() -> RunCase:
    os._exit(1)


def test_every_case_is_counted_once_whatever_becomes_of_its_child(tmp_path: Path) -> None:
    log = tmp_path / "log"
    bounds = Bounds("fine", BOUNDS.seconds, BOUNDS.n_bytes, cases_a_child=4, log=log)
    # The peak of memory stays: the case that swells is the last of its child.
    tally = run_in_children([0, 1, 3, 6, 7, 4, 2, 8], functools.partial(_set_up, log), bounds)
    assert tally.n_cases == 8
    assert (tally.n_passed, tally.n_refused) == (4, 1)
    assert tally.outcomes == {"thing: fine": 4, "thing: Refused": 1}
    told = {failure.partition(":")[0]: failure for failure in tally.failures}
    assert told["case 1"] == "case 1: the process died (6): GGML_ASSERT(false) failed"
    assert told["case 2"] == "case 2: over 1 s"
    assert "ValueError: not expected" in told["case 3"]
    assert told["case 4"].endswith("bytes of memory")
    assert len(tally.failures) == 4


def test_a_child_that_cannot_begin_ends_the_campaign() -> None:
    with pytest.raises(RuntimeError, match="a child cannot start"):
        run_in_children([1, 2], _cannot, BOUNDS)


def test_tallies_add_up_and_tell_whether_something_failed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    one, other = Tally(), Tally()
    one.count(("done", 1, ("thing", "fine"), 5, 0.0), 0.1, BOUNDS)
    assert one.show("ran") == 0
    other.count(("failed", 2, "Trace", 7, 0.0), 0.2, BOUNDS)
    other.count(("done", 3, ("thing", "fine"), 0, 0.0), 2.0, BOUNDS)
    assert other.failures[-1] == "case 3: 2.0 s"
    one.add(other)
    assert (one.n_cases, one.n_passed, one.n_bytes_grown, one.slowest_s) == (3, 2, 7, 2.0)
    assert one.show("ran") == 1
    out = capsys.readouterr().out
    assert "1 cases in 0 s: 1 ran, 0 refused, 0 failures" in out
    assert "case 2: Trace" in out

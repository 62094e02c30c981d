"""Fuzz cases run in child processes: what dies, hangs or swells costs one case, and is told.

A campaign is a picklable function without arguments that sets a child up and gives what runs a
case: from the case's number, what was spoilt and what came of it (``passed``, or the class of the
error that refused it, ...). Whatever it raises is a failure; so is a case that computes for too
long, takes too much memory, or ends the process.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import resource
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil

RunCase = Callable[[int], tuple[str, ...]]


@dataclass(frozen=True)
class Bounds:
    """What a case may take, and what it is called when it was not refused."""

    passed: str
    seconds: float
    n_bytes: int
    """Of memory beyond the start's."""
    cases_a_child: int | None = None
    """A new child now and then, where a library keeps memory of every case."""
    log: Path | None = None
    """Where a child's last words are, for the failures."""


@dataclass
class Tally:
    """What became of the cases."""

    n_cases: int = 0
    n_passed: int = 0
    n_refused: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    slowest_s: float = 0.0
    n_bytes_grown: int = 0
    seconds: float = 0.0

    def add(self, other: Tally) -> None:
        """Count another campaign's cases, too."""
        self.n_cases += other.n_cases
        self.n_passed += other.n_passed
        self.n_refused += other.n_refused
        self.outcomes += other.outcomes
        self.failures += other.failures
        self.slowest_s = max(self.slowest_s, other.slowest_s)
        self.n_bytes_grown = max(self.n_bytes_grown, other.n_bytes_grown)
        self.seconds += other.seconds

    def count(self, message: Any, seconds: float, bounds: Bounds) -> None:
        """Count what a child said of a case."""
        kind, case, outcome, grown, _ = message
        self.n_cases += 1
        self.slowest_s = max(self.slowest_s, seconds)
        self.n_bytes_grown = max(self.n_bytes_grown, grown)
        if kind == "failed":
            self.failures.append(f"case {case}: {outcome}")
        else:
            passed = outcome[1] == bounds.passed
            self.n_passed += passed
            self.n_refused += not passed
            self.outcomes[f"{outcome[0]}: {outcome[1]}"] += 1
        if grown > bounds.n_bytes:
            self.failures.append(f"case {case}: {grown} bytes of memory")
        elif seconds > bounds.seconds:
            self.failures.append(f"case {case}: {seconds:.1f} s")

    def show(self, passed: str) -> int:
        """Print everything; the exit code for a program."""
        for failure in self.failures:
            print(failure)
        print(
            f"{self.n_cases} cases in {self.seconds:.0f} s: {self.n_passed} {passed}, "
            f"{self.n_refused} refused, {len(self.failures)} failures; slowest "
            f"{self.slowest_s:.2f} s, memory grew by {self.n_bytes_grown / 1e6:.0f} MB"
        )
        for kind, count in self.outcomes.most_common():
            print(f"  {count:5} {kind}")
        return 1 if self.failures else 0


def run_in_children(
    cases: Iterable[int], set_up: Callable[[], RunCase], bounds: Bounds, *, say: bool = False
) -> Tally:
    """Run the cases in child processes; a child that hangs or dies costs one case."""
    tally, waiting = Tally(), list(cases)
    began = time.perf_counter()
    context = multiprocessing.get_context("spawn")
    while waiting:
        ours, theirs = context.Pipe(duplex=False)
        arguments = (waiting[: bounds.cases_a_child], set_up, theirs)
        child = context.Process(target=_child, args=arguments, daemon=True)
        child.start()
        theirs.close()
        follow(child, ours, waiting, tally, bounds, say=say)
    tally.seconds = time.perf_counter() - began
    return tally


def _child(cases: list[int], set_up: Callable[[], RunCase], report: Connection) -> None:
    """Run cases one after the other, telling before and after each."""
    run_case = set_up()
    grown_from = _peak()
    for case in cases:
        report.send(("begin", case, time.process_time()))
        message: tuple[Any, ...]
        try:
            message = ("done", case, run_case(case))
        except BaseException:  # noqa: BLE001 - whatever is not expected is a finding
            message = ("failed", case, traceback.format_exc(limit=-4)[:2000])
        report.send((*message, _peak() - grown_from, time.process_time()))
    report.send(("end", None, None))


def _peak() -> int:
    """Most memory this process has held. What rusage says begins with the parent's, on Linux."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    (line,) = (row for row in status.read_text().splitlines() if row.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def follow(
    child: Any,
    reports: Connection,
    waiting: list[int],
    tally: Tally,
    bounds: Bounds,
    *,
    say: bool = False,
) -> None:
    """Listen to one child until it ends, dies or hangs; takes what it did off ``waiting``.

    RuntimeError for a child that does not even begin.
    """
    current, began = None, 0.0
    while True:
        try:
            if not _wait(child, reports, began, bounds.seconds):
                tally.failures.append(f"case {current}: over {bounds.seconds:g} s")
                break
            message = reports.recv()
        except (EOFError, psutil.NoSuchProcess):
            child.join()
            words = _last_words(bounds.log)
            tally.failures.append(f"case {current}: the process died ({child.exitcode}){words}")
            break
        if message[0] == "end":
            child.join()
            return
        if message[0] == "begin":
            current, began = message[1], message[2]
            continue
        waiting.remove(current)
        tally.count(message, message[-1] - began, bounds)
        if say and message[0] == "failed":
            print(tally.failures[-1], flush=True)
        if say and tally.n_cases % 250 == 0:
            print(f"{tally.n_cases} cases, {len(tally.failures)} failures", flush=True)
    if say:
        print(tally.failures[-1], flush=True)
    child.kill()
    child.join()
    if current is None:
        raise RuntimeError(f"a child cannot start: {tally.failures[-1]}")
    if current in waiting:
        waiting.remove(current)
        tally.n_cases += 1


def _last_words(log: Path | None) -> str:
    text = log.read_text(errors="replace").strip()[-300:] if log and log.exists() else ""
    return f": {text}" if text else ""


def _wait(child: Any, reports: Connection, began: float, limit_s: float) -> bool:
    """Whether the child says something before it has computed, or slept, for too long.

    Waiting for its turn on a busy machine does not count.
    """
    slept = 0
    while not reports.poll(1.0):
        process = psutil.Process(child.pid)
        times = process.cpu_times()
        slept = 0 if _wants_to_run(process) else slept + 1
        if times.user + times.system - began > limit_s or slept > 3 * limit_s:
            return False
    return True


def _wants_to_run(process: psutil.Process) -> bool:
    """Whether the process, or one that it started, has something to compute."""
    for each in (process, *process.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            if each.status() in (psutil.STATUS_RUNNING, psutil.STATUS_DISK_SLEEP):
                return True
    return False

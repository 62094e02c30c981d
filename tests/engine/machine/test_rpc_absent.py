"""Workers that were missing when a model was loaded: somebody looks for them, nobody waits."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from mofa_gguf.engine.machine import rpc_absent
from mofa_gguf.engine.machine.rpc_absent import Absentees
from mofa_gguf.engine.machine.rpc_protocol import WorkerDevice, WorkerGone

FIRST, SECOND = ("first", 1), ("second", 2)


class Machines:
    """Answers for those that are there; counts the questions."""

    def __init__(self) -> None:
        self.there: set[tuple[str, int]] = set()
        self.asked: list[tuple[str, int]] = []
        self.may_answer = threading.Event()
        self.may_answer.set()

    def ask(self, address: tuple[str, int], *, timeout_s: float) -> list[WorkerDevice]:
        self.asked.append(address)
        self.may_answer.wait(10)
        if address not in self.there:
            raise WorkerGone("it cannot be reached")
        return [WorkerDevice(1, 1)]


@pytest.fixture
def machines(monkeypatch: pytest.MonkeyPatch) -> Machines:
    made = Machines()
    monkeypatch.setattr(rpc_absent, "ask_devices", made.ask)
    monkeypatch.setattr(rpc_absent, "EVERY_S", 0.02)
    return made


def eventually(condition: Callable[[], bool]) -> bool:
    until = time.monotonic() + 5
    while not condition() and time.monotonic() < until:
        time.sleep(0.005)
    return condition()


def test_one_that_is_back_is_noticed_and_not_asked_again(machines: Machines) -> None:
    absentees = Absentees({"first:1": FIRST, "second:2": SECOND})
    assert not absentees.back
    assert eventually(lambda: absentees.back or len(machines.asked) >= 4)
    assert not absentees.back
    machines.there = {SECOND}
    assert eventually(lambda: absentees.back)
    asked = len(machines.asked)
    time.sleep(0.05)
    assert absentees.back
    assert len(machines.asked) == asked


def test_nobody_waits_for_a_machine_and_it_is_asked_once_at_a_time(machines: Machines) -> None:
    machines.may_answer.clear()
    absentees = Absentees({"first:1": FIRST})
    assert eventually(lambda: not absentees.back and bool(machines.asked))
    for _ in range(20):
        assert not absentees.back
        time.sleep(0.003)
    assert machines.asked == [FIRST]
    machines.may_answer.set()


def test_they_are_asked_now_and_then_only(
    machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rpc_absent, "EVERY_S", 60)
    machines.there = {FIRST}
    absentees = Absentees({"first:1": FIRST})
    time.sleep(0.05)
    assert not absentees.back
    assert machines.asked == []


def test_where_nobody_was_missing_nobody_is_asked(machines: Machines) -> None:
    absentees = Absentees({})
    time.sleep(0.05)
    assert not absentees.back
    assert machines.asked == []


def test_where_the_system_has_no_thread_the_next_one_asks(
    machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    absentees = Absentees({"first:1": FIRST})
    machines.there = {FIRST}
    time.sleep(0.03)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        assert not absentees.back
    assert eventually(lambda: absentees.back)

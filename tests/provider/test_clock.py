"""The thread that tells of time that went by."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from mofa_gguf.provider.background import Background
from mofa_gguf.provider.clock import Clock

SECONDS = 60.0


class Watched:
    """A clock and what it told."""

    def __init__(self) -> None:
        self.changed = threading.Condition(threading.RLock())
        self.background = Background()
        self.event_s: float | None = None
        self.told_s: list[float] = []
        self.told, self.afterwards = threading.Event(), threading.Event()
        self.lock_was_free: list[bool] = []
        self.clock = Clock(
            self.changed,
            self.background,
            next_event_s=lambda _now: self.event_s,
            passed=self._passed,
            afterwards=self._afterwards,
        )

    def due_in(self, seconds: float) -> None:
        """Set the next event."""
        with self.changed:
            self.event_s = time.monotonic() + seconds
            self.clock.wind()
            self.changed.notify_all()

    @property
    def n_threads(self) -> int:
        return sum(t.name == "mofa-gguf-clock" for t in threading.enumerate())

    def _passed(self, now_s: float) -> None:
        self.told_s.append(now_s)
        self.event_s = None
        self.told.set()

    def _afterwards(self) -> None:
        asker = threading.Thread(target=self._try_lock)
        asker.start()
        asker.join(SECONDS)
        self.afterwards.set()

    def _try_lock(self) -> None:
        self.lock_was_free.append(self.changed.acquire(timeout=SECONDS))
        self.changed.release()


@pytest.fixture
def watched() -> Iterator[Watched]:
    made = Watched()
    yield made
    with made.changed:
        made.clock.stop()
    assert made.background.join(SECONDS) == []


def test_without_an_event_there_is_no_thread(watched: Watched) -> None:
    with watched.changed:
        watched.clock.wind()
    assert watched.n_threads == 0


def test_an_event_is_told_when_its_time_has_come_and_the_lock_is_free_afterwards(
    watched: Watched,
) -> None:
    started = time.monotonic()
    watched.due_in(0.02)
    assert watched.told.wait(SECONDS)
    assert watched.told_s[0] >= started + 0.02
    assert watched.afterwards.wait(SECONDS)
    assert all(watched.lock_was_free)


def test_an_event_that_comes_to_be_sooner_is_told_sooner(watched: Watched) -> None:
    watched.due_in(1000)
    watched.due_in(0.01)
    assert watched.told.wait(SECONDS)


def test_one_thread_does_for_all_events(watched: Watched) -> None:
    for _ in range(3):
        watched.told.clear()
        watched.due_in(0.001)
        assert watched.told.wait(SECONDS)
        assert watched.n_threads == 1
    assert len(watched.told_s) == 3


def test_once_stopped_it_tells_nothing_and_its_thread_ends(watched: Watched) -> None:
    watched.due_in(1000)
    with watched.changed:
        watched.event_s = time.monotonic()
        watched.clock.stop()
    assert watched.background.join(SECONDS) == []
    assert watched.told_s == []


def test_where_the_system_has_no_thread_the_next_winding_tries_again(
    watched: Watched, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(watched.background, "start", refuse)
        watched.due_in(0.001)
    assert "can't start new thread" in caplog.text
    watched.due_in(0.001)
    assert watched.told.wait(SECONDS)

"""Daemon threads that a pool waits for."""

from __future__ import annotations

import threading

import pytest

from mofa_gguf.provider.background import Background


def test_those_that_are_not_done_in_time_are_named() -> None:
    background, release = Background(), threading.Event()

    def wait() -> None:
        release.wait(60)

    background.start(lambda: None, "quick")
    background.start(wait, "slow")
    assert background.join(0.05) == ["mofa-gguf-slow"]
    release.set()
    assert background.join(60) == []


def test_a_thread_that_the_system_refuses_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    background = Background()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="new thread"):
            background.start(lambda: None, "work")
    assert background.join(60) == []


def test_waiting_while_a_thread_starts_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    background, late = Background(), list[str]()
    start = threading.Thread.start
    waiter = threading.Thread(target=lambda: late.extend(background.join(60)), daemon=True)
    done = threading.Event()

    def start_late(thread: threading.Thread) -> None:
        start(waiter)
        waiter.join(0.05)
        start(thread)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start_late)
        background.start(done.set, "work")
    waiter.join(60)
    assert done.is_set()
    assert late == []

"""What leaves a team of threads behind runs on a thread that ends."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path

import pytest

from mofa_gguf.engine import native
from mofa_gguf.engine.models.loading import load_model
from mofa_gguf.engine.models.logits import Probe
from mofa_gguf.engine.models.model import Model
from mofa_gguf.engine.native import apart, llama
from mofa_gguf.engine.options import EngineOptions
from tools.bench.model import Shape, write_model

SMALL = Shape(n_layers=2, n_embd=256, n_heads=4, n_kv_heads=4, n_ff=512, n_vocab=600, n_ctx=512)


def system_threads() -> int:
    """Threads of this process, C's included, once those that are about to end have ended."""
    seen = [0, 1]
    while len(set(seen[-4:])) > 1:
        seen.append(len(list(Path("/proc/self/task").iterdir())))
        time.sleep(0.05)
    return seen[-1]


def test_the_thread_has_ended_when_its_result_is_there() -> None:
    (thread,) = apart(lambda: [threading.current_thread()])
    assert thread is not threading.current_thread()
    assert not thread.is_alive()


def test_what_it_raises_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        apart(lambda: 1 // 0)


@pytest.mark.parametrize("heeds", [True, False])
def test_who_is_interrupted_stops_it_and_waits_for_its_end(heeds: bool) -> None:
    stopped, left = threading.Event(), []

    def work() -> str:
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        assert stopped.wait(10)
        if heeds:
            raise KeyboardInterrupt
        return "done all the same"

    with pytest.raises(KeyboardInterrupt):
        apart(work, stop=lambda _: stopped.set(), discard=left.append)
    assert left == ([] if heeds else ["done all the same"])


def test_who_is_interrupted_again_waits_all_the_same() -> None:
    ended: list[str] = []

    def work() -> None:
        for _ in range(5):
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            time.sleep(0.02)
        ended.append("work")

    with pytest.raises(KeyboardInterrupt):
        apart(work)
    assert ended == ["work"]


@pytest.mark.parametrize("late", [True, False], ids=["begins later", "never begins"])
def test_what_has_not_begun_when_the_interrupt_comes_is_not_done(
    late: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model that it was to use is closed by then."""
    done: list[str] = []
    begin = threading.Thread.start
    threads: list[threading.Thread] = []

    def interrupted(thread: threading.Thread) -> None:
        threads.append(thread)
        raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        apart(lambda: done.append("work"), discard=lambda _: done.append("discarded"))
    if late:
        begin(threads[0])
        threads[0].join()
    assert done == []


def test_an_interrupted_load_ends_and_leaves_nothing(tiny_model: Path) -> None:
    def progress(_share: float) -> None:
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        time.sleep(0.2)

    with pytest.raises(KeyboardInterrupt):
        load_model(
            tiny_model, EngineOptions(n_threads=1), lambda model, _: model, progress=progress
        )
    load_model(tiny_model, EngineOptions(n_threads=1), lambda model, _: model).close()


def test_nothing_is_logged_on_the_thread_that_ctrl_c_interrupts(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exception that comes while C calls Python back is printed with its trace, and lost."""
    threads: list[threading.Thread] = []
    write = native._sink.write

    def note(level: int, text: bytes) -> None:
        threads.append(threading.current_thread())
        write(level, text)

    monkeypatch.setattr(native._sink, "write", note)
    with Probe(tiny_model, n_threads=1) as probe:
        probe.logits([1, 2])
        probe.embedding([1, 2])
    assert threads
    assert threading.current_thread() not in threads


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="the system lists no threads")
def test_loading_and_measuring_leave_no_threads_behind(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.gguf", SMALL)
    apart(lambda: llama().llama_print_system_info())
    before = system_threads()

    def keep(model: Model, _load: object) -> Model:
        return model

    load_model(path, EngineOptions(n_threads=2), keep).close()
    with Probe(path, n_threads=2) as probe:
        probe.logits([1, 300, 301])
    assert system_threads() <= before

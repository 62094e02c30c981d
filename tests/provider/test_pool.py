"""The pool's threads, futures and timer, over models that are made up."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from mofa_gguf import ConfigError, GGUFConfig, QuotaExceeded
from mofa_gguf.engine.errors import EngineClosed, EngineError, ModelFileError, OutOfMemory
from mofa_gguf.engine.options import EngineOptions
from mofa_gguf.provider.errors import NotEnoughMemory, translated
from mofa_gguf.provider.footprint import Footprint
from mofa_gguf.provider.loaded import LoadedModel
from mofa_gguf.provider.loader import Check, Found
from mofa_gguf.provider.pool import ModelPool
from mofa_gguf.provider.residency import Stage
from mofa_gguf.store import ResolvedModel

GIB = 2**30


@dataclass
class MadeUpModel:
    """Closes when told to."""

    name: str
    closed: bool = False
    unclosable: bool = False
    engine: SimpleNamespace = field(default_factory=lambda: SimpleNamespace(outdated=False))

    def close(self) -> None:
        self.closed = True
        if self.unclosable:
            raise RuntimeError("it does not end")


@dataclass
class MadeUpLoader:
    """Models of the sizes given; what it does is written down and can be held up."""

    sizes: dict[str, float]
    log: list[str] = field(default_factory=list)
    models: list[MadeUpModel] = field(default_factory=list)
    held: dict[str, threading.Event] = field(default_factory=dict)
    failures: dict[str, BaseException] = field(default_factory=dict)
    deaf: bool = False
    """Does not ask whether to go on."""
    unclosable: bool = False
    """Its models raise when they are closed."""

    def find(self, config: GGUFConfig, check: Check) -> ResolvedModel:
        self._step("find", config, check)
        return ResolvedModel(Path(config.model), "gguf", config.model)

    def measure(
        self, config: GGUFConfig, resolved: ResolvedModel, *, budget_bytes: int, n_models: int
    ) -> Footprint:
        return Footprint(int(self.sizes[str(config.name)] * GIB), EngineOptions())

    def load(self, config: GGUFConfig, found: Found, check: Check) -> LoadedModel:
        self._step("load", config, check)
        model = MadeUpModel(str(config.name), unclosable=self.unclosable)
        self.models.append(model)
        return cast(LoadedModel, model)

    def _step(self, what: str, config: GGUFConfig, check: Check) -> None:
        step = f"{what} {config.name}"
        self.log.append(step)
        held = self.held.get(step, threading.Event())
        while step in self.held and not held.wait(0.001):
            if not self.deaf:
                check()
        if step in self.failures:
            raise self.failures.pop(step)


MakePool = Callable[..., ModelPool]


@pytest.fixture
def make_pool() -> Iterator[MakePool]:
    """Makes pools and closes them; none leaves a thread behind."""
    before = set(threading.enumerate())
    pools = []

    def make(loader: MadeUpLoader, budget_gib: float | None = 10, **options: Any) -> ModelPool:
        models: dict[str, Any] = {
            name: {"model": f"{name}.gguf", **options.pop(name, {})} for name in loader.sizes
        }
        config = GGUFConfig(models=models)
        budget = None if budget_gib is None else int(budget_gib * GIB)
        settings = {"wait_s": 60.0, **options}
        pool = ModelPool(config.each(), budget_bytes=budget, loader=loader, **settings)
        pools.append(pool)
        return pool

    yield make
    for pool in pools:
        pool.close()
    until = time.monotonic() + 60
    while set(threading.enumerate()) - before and time.monotonic() < until:
        time.sleep(0.005)
    assert set(threading.enumerate()) <= before


def eventually(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.001)


def visit(pool: ModelPool, model: str, **options: Any) -> None:
    use = pool.ask(model)
    use.future.result(60)
    use.release(**options)


def stage(pool: ModelPool, model: str) -> Stage:
    return pool.states()[model][0]


def test_first_users_at_the_same_time_get_one_model(make_pool: MakePool) -> None:
    loader = MadeUpLoader({"a": 1})
    pool = make_pool(loader)
    uses = [pool.ask("a") for _ in range(5)]
    assert len({id(use.future.result(60)) for use in uses}) == 1
    assert loader.log == ["find a", "load a"]
    assert pool.states()["a"] == (Stage.READY, 5, GIB)


def test_a_model_that_loads_holds_up_no_other(make_pool: MakePool) -> None:
    loader = MadeUpLoader({"slow": 1, "a": 1, "b": 1})
    loader.held["load slow"] = threading.Event()
    pool = make_pool(loader)
    visit(pool, "a")
    waiting = pool.ask("slow")
    visit(pool, "a")
    visit(pool, "b")
    assert not waiting.future.done()
    loader.held["load slow"].set()
    waiting.future.result(60)


def test_unused_models_are_closed_to_make_room(make_pool: MakePool) -> None:
    loader = MadeUpLoader({"a": 6, "b": 6})
    pool = make_pool(loader)
    visit(pool, "a")
    visit(pool, "b")
    assert [(model.name, model.closed) for model in loader.models] == [("a", True), ("b", False)]


def test_what_is_in_use_stays_and_the_error_has_the_numbers(make_pool: MakePool) -> None:
    loader = MadeUpLoader({"a": 6, "b": 7})
    pool = make_pool(loader, wait_s=0.05)
    use = pool.ask("a")
    use.future.result(60)
    refused = pool.ask("b")
    with pytest.raises(
        NotEnoughMemory, match=r"b needs about 7\.0 GiB .* 10\.0 GiB.*a \(6\.0 GiB\)"
    ):
        refused.future.result(60)
    assert not loader.models[0].closed
    with pytest.raises(QuotaExceeded) as caught, translated():
        refused.future.result()
    assert caught.value.n_bytes_needed == 7 * GIB
    assert caught.value.n_bytes_free == 4 * GIB
    use.release()
    visit(pool, "b")


def test_a_model_that_never_fits_is_refused_at_once(make_pool: MakePool) -> None:
    pool = make_pool(MadeUpLoader({"a": 11}))
    with pytest.raises(NotEnoughMemory, match="raise memory_budget, or use a smaller"):
        pool.ask("a").future.result(60)


def test_an_automatic_budget_refuses_nobody_who_is_alone(make_pool: MakePool) -> None:
    pool = make_pool(MadeUpLoader({"a": 10**9}), budget_gib=None)
    visit(pool, "a")
    assert pool.budget_bytes is not None
    assert 0 < pool.budget_bytes < 10**9 * GIB


@pytest.mark.parametrize("step", ["find a", "load a"])
def test_a_failure_goes_to_all_who_wait_and_the_next_tries_again(
    make_pool: MakePool, step: str
) -> None:
    loader = MadeUpLoader({"a": 1}, failures={step: ModelFileError("a.gguf", "is broken")})
    loader.held[step] = threading.Event()
    pool = make_pool(loader)
    uses = [pool.ask("a"), pool.ask("a")]
    loader.held[step].set()
    for use in uses:
        with pytest.raises(ConfigError, match="is broken"), translated():
            use.future.result(60)
    visit(pool, "a")


class Panic(BaseException):
    """What a library's bindings raise on a bug of theirs: Rust's are no Exception."""


@pytest.mark.parametrize("step", ["find a", "load a"])
def test_a_bug_in_a_library_leaves_nobody_waiting(make_pool: MakePool, step: str) -> None:
    pool = make_pool(MadeUpLoader({"a": 1}, failures={step: Panic("index out of bounds")}))
    with pytest.raises(EngineError, match=r"a could not be loaded.*Panic.*index out of bounds"):
        pool.ask("a").future.result(10)
    visit(pool, "a")


def test_the_pool_keeps_no_error_alive(make_pool: MakePool) -> None:
    loader = MadeUpLoader({"a": 1}, failures={"load a": ModelFileError("a.gguf", "is broken")})
    error = weakref.ref(loader.failures["load a"])
    pool = make_pool(loader)
    pool.ask("a").future.exception(60)
    eventually(lambda: gc.collect() is not None and error() is None)


def test_a_model_that_fails_to_close_makes_room_all_the_same(
    make_pool: MakePool, caplog: pytest.LogCaptureFixture
) -> None:
    loader = MadeUpLoader({"a": 6, "b": 6}, unclosable=True)
    pool = make_pool(loader)
    visit(pool, "a")
    use = pool.ask("b")
    use.future.result(10)
    use.release()
    pool.unload("b").result(10)
    assert all(model.closed for model in loader.models)
    assert "it does not end" in caplog.text


class TestUsesThatAreDropped:
    """By whoever ends without letting go, as a stream whose event loop was closed before it."""

    def test_a_dropped_use_is_over_with_the_next_event(self, make_pool: MakePool) -> None:
        loader = MadeUpLoader({"a": 6, "b": 6})
        pool = make_pool(loader)
        use = pool.ask("a")
        use.future.result(60)
        del use
        gc.collect()
        visit(pool, "b")
        assert loader.models[0].closed

    def test_the_status_counts_it_no_more(self, make_pool: MakePool) -> None:
        pool = make_pool(MadeUpLoader({"a": 1}))
        use = pool.ask("a")
        use.future.result(60)
        assert pool.states()["a"] == (Stage.READY, 1, GIB)
        del use
        gc.collect()
        assert pool.states()["a"] == (Stage.READY, 0, GIB)

    def test_who_only_keeps_the_future_is_answered_all_the_same(self, make_pool: MakePool) -> None:
        loader = MadeUpLoader({"a": 1})
        loader.held["load a"] = threading.Event()
        pool = make_pool(loader)
        future = pool.ask("a").future
        gc.collect()
        assert pool.states()["a"][0] is not Stage.READY
        loader.held["load a"].set()
        assert future.result(60) is not None
        assert pool.states()["a"][1] == 0

    def test_one_that_was_let_go_of_is_not_taken_back_twice(self, make_pool: MakePool) -> None:
        pool = make_pool(MadeUpLoader({"a": 1}))
        other = pool.ask("a")
        other.future.result(60)
        visit(pool, "a")
        gc.collect()
        assert pool.states()["a"] == (Stage.READY, 1, GIB)
        other.release()


class TestThreadsThatTheSystemRefuses:
    """As where a container's limit of threads is reached, and at the end of a process."""

    @pytest.fixture
    def refused(self, monkeypatch: pytest.MonkeyPatch) -> set[str]:
        """The kinds of threads that do not start: their names' first words."""
        refused: set[str] = set()
        start = threading.Thread.start

        def refuse(thread: threading.Thread) -> None:
            if thread.name.removeprefix("mofa-gguf-").split("-")[0] in refused:
                raise RuntimeError("can't start new thread")
            start(thread)

        monkeypatch.setattr(threading.Thread, "start", refuse)
        return refused

    @pytest.mark.parametrize("kind", ["find", "load"])
    def test_who_needs_one_is_told_and_the_next_may_try(
        self, make_pool: MakePool, refused: set[str], kind: str
    ) -> None:
        pool = make_pool(MadeUpLoader({"a": 1}))
        refused.add(kind)
        with pytest.raises(EngineError, match=r"a could not be loaded.*can.t start new thread"):
            pool.ask("a").future.result(10)
        refused.clear()
        visit(pool, "a")

    def test_a_model_that_must_go_is_freed_on_the_thread_that_is_there(
        self, make_pool: MakePool, refused: set[str]
    ) -> None:
        loader = MadeUpLoader({"a": 6, "b": 6})
        pool = make_pool(loader)
        visit(pool, "a")
        refused.add("unload")
        visit(pool, "b")
        assert loader.models[0].closed
        pool.close()
        assert loader.models[1].closed

    def test_the_clock_starts_when_it_can(self, make_pool: MakePool, refused: set[str]) -> None:
        pool = make_pool(MadeUpLoader({"a": 1}), a={"keep_alive": 0.02})
        refused.add("clock")
        visit(pool, "a")
        refused.clear()
        visit(pool, "a")
        eventually(lambda: stage(pool, "a") is Stage.ABSENT)


def test_where_memory_runs_out_against_the_estimate_unused_models_go_first(
    make_pool: MakePool,
) -> None:
    loader = MadeUpLoader({"a": 1, "b": 1}, failures={"load b": OutOfMemory("it is full")})
    pool = make_pool(loader)
    visit(pool, "a")
    visit(pool, "b")
    assert loader.log[-2:] == ["load b", "load b"]
    assert loader.models[0].closed
    pool.unload("b").result(60)
    loader.failures["load b"] = OutOfMemory("it is full")
    with pytest.raises(QuotaExceeded, match="it is full"), translated():
        pool.ask("b").future.result(60)


def test_who_gives_up_waiting_is_not_counted(make_pool: MakePool) -> None:
    loader = MadeUpLoader({"a": 1})
    loader.held["load a"] = threading.Event()
    pool = make_pool(loader)
    use = pool.ask("a")
    eventually(lambda: "load a" in loader.log)
    use.future.cancel()
    use.release()
    use.release()
    loader.held["load a"].set()
    eventually(lambda: stage(pool, "a") is Stage.READY)
    assert pool.states()["a"][1] == 0
    with pytest.raises(CancelledError):
        use.future.result()


def test_a_model_leaves_when_its_time_is_over(make_pool: MakePool) -> None:
    loader = MadeUpLoader({"a": 1, "b": 1, "c": 1})
    pool = make_pool(loader, a={"keep_alive": 0.02}, b={"keep_alive": 0})
    for name in "abc":
        visit(pool, name)
    eventually(lambda: stage(pool, "a") is Stage.ABSENT is stage(pool, "b"))
    assert {model.name for model in loader.models if model.closed} == {"a", "b"}
    visit(pool, "c", keep_alive_s=0)
    eventually(lambda: stage(pool, "c") is Stage.ABSENT)


def test_an_outdated_model_is_loaded_again_for_the_next(make_pool: MakePool) -> None:
    loader = MadeUpLoader({"a": 1})
    pool = make_pool(loader)
    visit(pool, "a")
    loader.models[0].engine.outdated = True
    use = pool.ask("a")
    assert cast(MadeUpModel, use.future.result(60)) is loader.models[1]
    assert loader.models[0].closed


def test_unloading_waits_for_those_who_use_it(make_pool: MakePool) -> None:
    loader = MadeUpLoader({"a": 1})
    pool = make_pool(loader)
    use = pool.ask("a")
    use.future.result(60)
    gone = pool.unload("a")
    assert not gone.done()
    assert not loader.models[0].closed
    use.release()
    gone.result(60)
    assert loader.models[0].closed
    pool.unload("a").result(60)


def test_unloading_is_told_although_the_model_comes_back_at_once(make_pool: MakePool) -> None:
    for _ in range(100):  # who waits for it must not miss the moment between two stays
        pool = make_pool(MadeUpLoader({"a": 1}))
        use = pool.ask("a")
        use.future.result(60)
        gone, next_use = pool.unload("a"), pool.ask("a")
        use.release()
        next_use.future.result(60)
        gone.result(5)
        pool.close()


def test_unloading_ends_with_a_load_that_fails(make_pool: MakePool) -> None:
    loader = MadeUpLoader({"a": 1}, failures={"load a": ModelFileError("a.gguf", "is broken")})
    loader.held["load a"] = threading.Event()
    pool = make_pool(loader)
    use = pool.ask("a")
    eventually(lambda: "load a" in loader.log)
    gone = pool.unload("a")
    assert not gone.done()
    loader.held["load a"].set()
    gone.result(60)
    with pytest.raises(ModelFileError):
        use.future.result(60)


def test_a_fork_can_neither_use_nor_unload_what_its_parent_loaded(
    make_pool: MakePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = make_pool(MadeUpLoader({"a": 1}))
    visit(pool, "a")
    with monkeypatch.context() as patch:
        patch.setattr("mofa_gguf.provider.pool.os.getpid", lambda: 1)
        for asked in (pool.ask("a").future, pool.unload("a")):
            with pytest.raises(EngineClosed, match="not to a fork"):
                asked.result(0)
        assert pool.get("a") is None
    assert stage(pool, "a") is Stage.READY


def test_a_fork_hears_at_once_that_nothing_is_loaded_in_it(
    make_pool: MakePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = make_pool(MadeUpLoader({"a": 1}))
    visit(pool, "a")
    told: list[object] = []
    # In a fork nobody is there to give back a lock that another thread had.
    asker = threading.Thread(
        target=lambda: told.extend([pool.states(), pool.used_bytes]), daemon=True
    )
    with monkeypatch.context() as patch, pool._changed:
        patch.setattr("mofa_gguf.provider.pool.os.getpid", lambda: 1)
        asker.start()
        asker.join(10)
    assert told == [{"a": (Stage.ABSENT, 0, 0)}, 0]


class TestClose:
    @pytest.mark.parametrize("step", ["find a", "load a"])
    def test_it_ends_a_load_and_those_who_wait_for_it(self, make_pool: MakePool, step: str) -> None:
        loader = MadeUpLoader({"a": 1})
        loader.held[step] = threading.Event()
        pool = make_pool(loader)
        use = pool.ask("a")
        eventually(lambda: step in loader.log)
        started = time.monotonic()
        pool.close()
        assert time.monotonic() - started < 9
        with pytest.raises(EngineClosed):
            use.future.result(60)
        assert loader.models == []

    def test_it_waits_only_so_long_for_what_does_not_listen(self, make_pool: MakePool) -> None:
        loader = MadeUpLoader({"a": 1}, deaf=True)
        loader.held["load a"] = threading.Event()
        pool = make_pool(loader)
        use = pool.ask("a")
        eventually(lambda: "load a" in loader.log)
        started = time.monotonic()
        pool.close(timeout_s=0.1)
        assert 0.1 <= time.monotonic() - started < 9
        with pytest.raises(EngineClosed):
            use.future.result(60)
        loader.held["load a"].set()
        eventually(lambda: bool(loader.models) and loader.models[0].closed)

    def test_it_closes_models_in_use_too_and_may_be_called_twice(self, make_pool: MakePool) -> None:
        loader = MadeUpLoader({"a": 1, "b": 1})
        pool = make_pool(loader)
        use = pool.ask("a")
        use.future.result(60)
        visit(pool, "b")
        pool.close()
        pool.close()
        assert all(model.closed for model in loader.models)
        use.release()
        with pytest.raises(EngineClosed):
            pool.ask("a").future.result(60)

    def test_it_ends_waiting_for_room_and_for_unloading(self, make_pool: MakePool) -> None:
        pool = make_pool(MadeUpLoader({"a": 6, "b": 6}))
        use = pool.ask("a")
        use.future.result(60)
        waiting, gone = pool.ask("b"), pool.unload("a")
        pool.close()
        with pytest.raises(EngineClosed):
            waiting.future.result(60)
        gone.result(60)

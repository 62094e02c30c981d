"""What goes wrong ends what it must, and nothing else; and everything always ends."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mofa_gguf.engine.engine import Engine
from mofa_gguf.engine.errors import DecodeFailed, EngineClosed, EngineError
from mofa_gguf.engine.models.context import Context
from mofa_gguf.engine.native import llama
from mofa_gguf.engine.options import EngineOptions
from mofa_gguf.engine.requests.generation import Generation
from mofa_gguf.engine.requests.request import FinishEvent, GenerationRequest, TextEvent
from mofa_gguf.engine.requests.sampling import SamplingOptions
from tests.support.tiny_gguf import TinyLlama, write_tiny_llama

GREEDY = SamplingOptions(temperature=0)
SECONDS = 60.0
"""Far more than anything here takes, on a busy machine too."""


def asked(text: str = "Hello, world", n: int = 12) -> GenerationRequest:
    return GenerationRequest(list(text.encode()), GREEDY, max_tokens=n, ignore_eos=True)


ENDLESS = GenerationRequest(list(b"on and on"), GREEDY, ignore_eos=True)


def told(generation: Generation) -> list[int]:
    return [t for e in generation if isinstance(e, TextEvent) for t in e.tokens]


def wait_until(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < until, "it never came true"
        time.sleep(0.005)


def is_idle(engine: Engine) -> bool:
    stats = engine.stats()
    return not stats.n_running and not stats.n_waiting


class Decoder:
    """Stands in for ``llama_decode``: gives these statuses first (None: decodes), then decodes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, statuses: list[int | None]) -> None:
        self.statuses = statuses
        self._real = llama().llama_decode
        monkeypatch.setattr(llama(), "llama_decode", self._decode)

    def _decode(self, context: object, batch: object) -> int:
        given = self.statuses.pop(0) if self.statuses else None
        return int(self._real(context, batch)) if given is None else given


class Gate:
    """Lets some decodes through and holds every other one before it begins, until it is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, n_free: int = 0) -> None:
        self.n_begun = 0
        self.arrived = threading.Event()
        self.open = threading.Event()
        real = Context.run

        def gated(context: Context) -> None:
            self.n_begun += 1
            if self.n_begun > n_free:
                self.arrived.set()
                self.open.wait(SECONDS)
            real(context)

        monkeypatch.setattr(Context, "run", gated)


@pytest.mark.parametrize("status", [2, -1, -2, -3])
def test_a_failed_decode_fails_its_batch_and_not_those_that_wait(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    options = EngineOptions(
        n_threads=1, flash_attn="off", cache_type_k="f32", cache_type_v="f32", max_parallel=1
    )
    engine = Engine.load(tiny_model, options)
    expected = told(engine.submit(asked()))
    Decoder(monkeypatch, [None, None, None, status])
    gate = Gate(monkeypatch)
    doomed, waiting = engine.submit(ENDLESS), engine.submit(asked())
    gate.open.set()
    with pytest.raises(DecodeFailed) as caught:
        list(doomed)
    assert caught.value.status == status
    assert told(waiting) == expected
    engine.close()


def test_where_cells_ought_to_do_all_is_computed_again_and_nobody_fails(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ["Hello", "one two", "one two three"]
    expected = [told(engine.submit(asked(text))) for text in texts]
    decoder = Decoder(monkeypatch, [None, None, None, None, 1])
    gate = Gate(monkeypatch)
    generations = [engine.submit(asked(text)) for text in texts]
    gate.open.set()
    assert [told(generation) for generation in generations] == expected
    assert decoder.statuses == []


def test_where_cells_do_not_do_at_all_the_request_fails(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = told(engine.submit(asked()))
    decoder = Decoder(monkeypatch, [1, 1])
    with pytest.raises(DecodeFailed) as caught:
        list(engine.submit(asked("another")))
    assert caught.value.status == 1
    assert decoder.statuses == []
    assert told(engine.submit(asked())) == expected


def test_after_failures_no_cell_is_lost(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    failures: list[list[int | None]] = [[1], [-3], [2], [1, 1], [None, -1], [None, None, 1]]
    for statuses in failures:
        with monkeypatch.context() as patch:
            Decoder(patch, statuses)
            for generation in [engine.submit(asked(f"{i}")) for i in range(3)]:
                try:
                    list(generation)
                except DecodeFailed:
                    continue
    told(engine.submit(asked()))
    wait_until(lambda: is_idle(engine))
    stats = engine.stats()
    assert stats.n_cells_used == stats.n_cells_cached


@pytest.mark.parametrize("error", [RuntimeError("a bug"), SystemExit(3), KeyboardInterrupt()])
def test_what_a_readers_callback_raises_does_not_end_the_engine(
    engine: Engine, error: BaseException
) -> None:
    def raise_it(_future: object) -> None:
        raise error

    with pytest.MonkeyPatch.context() as patch:
        gate = Gate(patch)
        future = engine.embed([[65, 66]])
        future.add_done_callback(raise_it)  # runs on the engine's thread
        gate.open.set()
        assert len(future.result(SECONDS)[0]) == engine.model.n_embd
    assert told(engine.submit(asked()))


def goes_idle_soon(engine: Engine, n_generated: int) -> None:
    """Nothing runs any more, and hardly a token was computed since ``n_generated``."""
    wait_until(lambda: is_idle(engine))
    assert engine.stats().n_generated_tokens - n_generated <= 4


def test_a_panic_of_a_library_fails_the_step_and_does_not_end_the_engine(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Panic(BaseException):
        """Rust's are no Exception in Python."""

    expected = told(engine.submit(asked()))
    worker = engine._worker
    assert worker is not None

    def panic(_interrupted: object) -> None:
        raise Panic("index out of bounds")

    with monkeypatch.context() as patch:
        patch.setattr(worker, "step", panic)
        with pytest.raises(EngineError, match="the engine failed: Panic"):
            told(engine.submit(asked()))
    assert "in an unexpected way" in caplog.text
    assert told(engine.submit(asked())) == expected


def test_a_loop_closed_mid_stream_cancels_the_request(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch, n_free=1)
    loop = asyncio.new_event_loop()
    events = engine.submit(ENDLESS).events()
    loop.run_until_complete(anext(events))
    loop.close()
    gate.open.set()
    goes_idle_soon(engine, 0)
    assert told(engine.submit(asked()))
    del events


def test_a_stream_that_nobody_has_any_more_is_cancelled(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    for _ in range(4):
        engine.submit(ENDLESS)  # dropped at once
    gc.collect()
    gate.open.set()
    goes_idle_soon(engine, 0)


def test_an_iterator_that_is_dropped_cancels_its_request(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch, n_free=1)
    iterator = iter(engine.submit(ENDLESS))
    next(iterator)
    del iterator
    gate.open.set()
    goes_idle_soon(engine, 0)


async def test_an_async_iterator_that_is_dropped_cancels_its_request(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch, n_free=1)
    async for _ in engine.submit(ENDLESS):
        break
    gc.collect()
    await asyncio.sleep(0.01)  # the loop closes generators that were dropped
    gate.open.set()
    await asyncio.to_thread(goes_idle_soon, engine, 0)


async def test_a_task_that_is_cancelled_cancels_its_request(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch, n_free=1)
    started = asyncio.Event()

    async def read() -> None:
        async for _ in engine.submit(ENDLESS):
            started.set()

    task = asyncio.create_task(read())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    gate.open.set()
    await asyncio.to_thread(goes_idle_soon, engine, 0)


def test_cancelling_in_the_middle_of_a_prompt_ends_it_with_the_step(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine.load(tiny_model, EngineOptions(n_threads=1, n_batch=8, max_parallel=1))
    n_batch = engine._worker.scheduler._n_batch if engine._worker else 0
    gate = Gate(monkeypatch)
    generation = engine.submit(GenerationRequest([65] * 240, GREEDY, max_tokens=5))
    assert gate.arrived.wait(SECONDS)
    generation.cancel()
    gate.open.set()
    *_, last = generation
    assert isinstance(last, FinishEvent)
    assert last.reason == "cancelled"
    assert gate.n_begun == 1
    assert engine.stats().n_prompt_tokens_computed == n_batch < 240
    engine.close()


@pytest.fixture
def long_engine(tmp_path: Path) -> Iterator[Engine]:
    """An engine that takes a prompt of thousands of tokens in one decode, for seconds."""
    shape = TinyLlama(n_ctx=16384, n_layers=4)
    path = write_tiny_llama(tmp_path / "long.gguf", shape)
    loaded = Engine.load(path, EngineOptions(n_threads=1, n_batch=16384, flash_attn="off"))
    yield loaded
    loaded.close()


def closing_takes(engine: Engine) -> float:
    started = time.monotonic()
    engine.close()
    return time.monotonic() - started


def test_closing_does_not_wait_for_a_long_prompt(long_engine: Engine) -> None:
    generation = long_engine.submit(GenerationRequest([65] * 16000, GREEDY))
    wait_until(lambda: long_engine.stats().n_prompt_tokens_computed > 0)
    assert closing_takes(long_engine) < SECONDS
    assert long_engine.stats().n_steps == 0, "the prompt was computed to its end"
    with pytest.raises(EngineClosed):
        list(generation)


def test_closing_fails_what_is_being_embedded(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine.load(tiny_model, EngineOptions(n_threads=1))
    gate = Gate(monkeypatch)
    first, second = engine.embed([[65] * 100]), engine.embed([[66] * 100])
    assert gate.arrived.wait(SECONDS)
    closer = threading.Thread(target=engine.close)
    closer.start()
    wait_until(lambda: engine.closed and engine._abort.is_set)
    gate.open.set()
    closer.join(SECONDS)
    assert not closer.is_alive()
    for future in (first, second):
        with pytest.raises(EngineClosed):
            future.result(SECONDS)


def test_many_may_close_at_once_and_again(tiny_model: Path) -> None:
    engine = Engine.load(tiny_model, EngineOptions(n_threads=1))
    streams = [engine.submit(ENDLESS) for _ in range(6)]
    threads = [threading.Thread(target=engine.close) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    assert not any(thread.is_alive() for thread in threads)
    engine.close()
    for stream in streams:
        try:
            list(stream)
        except EngineClosed:
            continue


def test_a_callback_on_the_engines_own_thread_may_close_it(tiny_model: Path) -> None:
    engine = Engine.load(tiny_model, EngineOptions(n_threads=1))
    stream = iter(engine.submit(ENDLESS))
    next(stream)
    future = engine.embed([[65, 66]])
    future.add_done_callback(lambda _: engine.close())
    assert future.result(SECONDS)
    wait_until(lambda: not engine._loop.thread.is_alive())
    with pytest.raises(EngineClosed):
        engine.submit(ENDLESS)
    engine.close()


def test_the_engines_thread_leaves_nobody_waiting_when_a_bug_ends_it(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine.load(tiny_model, EngineOptions(n_threads=1))
    monkeypatch.setattr(threading, "excepthook", lambda _: None)

    def broken() -> None:
        raise EngineError("the books are wrong")

    monkeypatch.setattr(engine._loop, "_count", broken)
    stream = engine.submit(ENDLESS)
    with pytest.raises(EngineClosed):
        list(stream)
    assert engine.closed
    engine.close()

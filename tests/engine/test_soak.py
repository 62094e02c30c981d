"""Many clients that join, stream, stall, cancel and send nonsense: nothing is lost, nothing sticks.

The long form is ``python -m tools.bench.soak``.
"""

from __future__ import annotations

import random
import threading
import time
from pathlib import Path

from mofa_gguf.engine.engine import Engine
from mofa_gguf.engine.errors import EngineError
from mofa_gguf.engine.options import EngineOptions
from mofa_gguf.engine.request import FinishEvent, GenerationRequest
from mofa_gguf.engine.sampling import SamplingOptions

N_CLIENTS = 12
SECONDS = 3.0


class Client:
    """One client with its own chance and its own count of what became of its requests."""

    def __init__(self, engine: Engine, seed: int) -> None:
        self.engine = engine
        self.chance = random.Random(seed)
        self.ended = 0
        self.refused = 0
        self.surprises: list[Exception] = []

    def run(self, until: float) -> None:
        while time.monotonic() < until:
            try:
                self.one()
            except EngineError:
                self.refused += 1
            except (RuntimeError, TypeError, ValueError, AttributeError, AssertionError) as error:
                self.surprises.append(error)
                return

    def one(self) -> None:
        chance = self.chance
        n_prompt = chance.choice([0, 1, 5, 40, 90, 300])
        system = [7] * min(n_prompt, 30)
        tokens = [*system, *(chance.randrange(256) for _ in range(n_prompt - len(system)))]
        request = GenerationRequest(
            tokens,
            SamplingOptions(temperature=chance.choice([0.0, 1.0])),
            max_tokens=chance.randrange(1, 60),
            ignore_eos=True,
            stop=chance.choice([(), ("ab",)]),
            deadline_s=chance.choice([None, None, 0.001]),
            priority=chance.randrange(3),
        )
        generation = self.engine.submit(request)
        leave_after = chance.choice([None, None, 0, 3])
        for n, event in enumerate(generation):
            if n == leave_after:
                generation.cancel()
                return
            if chance.random() < 0.02:
                time.sleep(0.01)
            if isinstance(event, FinishEvent):
                self.ended += 1


def test_nothing_is_lost_and_nothing_sticks(tiny_model: Path) -> None:
    options = EngineOptions(n_threads=1, max_parallel=6, max_queue=4, n_ctx=512)
    engine = Engine.load(tiny_model, options)
    clients = [Client(engine, seed) for seed in range(N_CLIENTS)]
    until = time.monotonic() + SECONDS
    threads = [threading.Thread(target=c.run, args=(until,), daemon=True) for c in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS + 30)
    assert not any(thread.is_alive() for thread in threads), "a client is stuck"
    assert [c.surprises for c in clients if c.surprises] == []
    assert sum(c.ended for c in clients) > 0
    # One more request makes the engine take out whatever was cancelled last.
    list(engine.submit(GenerationRequest([1, 2, 3], max_tokens=2, ignore_eos=True)))
    deadline = time.monotonic() + 5
    while engine.stats().n_running and time.monotonic() < deadline:
        time.sleep(0.01)
    stats = engine.stats()
    assert (stats.n_running, stats.n_waiting) == (0, 0)
    assert stats.n_cells_used == stats.n_cells_cached
    assert engine._worker is not None
    engine._worker.scheduler.check()
    engine.close()

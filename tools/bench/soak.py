"""Many clients on one engine for a long time: does anything leak, stick or get lost?

    python -m tools.bench.soak --minutes 30 [--model FILE] [--clients 32] [--output FILE]

Clients join, stream, stall, cancel and send oversized and malformed requests at random. Reported
are what became of the requests, the resident memory over time, the longest wait for a first token,
and whether all cells of the KV cache are accounted for. Without ``--model`` a tiny model with
random weights is made.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil

from mofa_gguf.engine.engine import Engine
from mofa_gguf.engine.errors import EngineError
from mofa_gguf.engine.options import EngineOptions
from mofa_gguf.engine.requests.request import FinishEvent, GenerationRequest
from mofa_gguf.engine.requests.sampling import SamplingOptions

STUCK_AFTER_S = 60.0


@dataclass
class Report:
    """What a soak showed."""

    n_finished: int = 0
    n_cancelled: int = 0
    n_refused: int = 0
    n_stuck: int = 0
    surprises: list[str] = field(default_factory=list)
    longest_first_event_s: float = 0.0
    resident_mb: list[float] = field(default_factory=list)
    n_cells_lost: int = 0


class Client:
    """One client with its own chance and its own count of what became of its requests."""

    def __init__(self, engine: Engine, seed: int) -> None:
        self.engine = engine
        self.chance = random.Random(seed)
        self.report = Report()

    def run(self, until: float) -> None:
        """Send requests until the time is over."""
        while time.monotonic() < until:
            try:
                self._one()
            except EngineError:
                self.report.n_refused += 1
                time.sleep(self.chance.random() * 0.05)
            except (RuntimeError, TypeError, ValueError, AttributeError, AssertionError) as error:
                self.report.surprises.append(repr(error))
                return

    def _one(self) -> None:
        request = self._request()
        started = time.monotonic()
        generation = self.engine.submit(request)
        leave_after = self.chance.choice([None, None, 0, 3])
        for n, event in enumerate(generation):
            if n == 0:
                waited = time.monotonic() - started
                self.report.longest_first_event_s = max(self.report.longest_first_event_s, waited)
            if n == leave_after:
                generation.cancel()
                self.report.n_cancelled += 1
                return
            if self.chance.random() < 0.02:
                time.sleep(0.01)
            if isinstance(event, FinishEvent):
                self.report.n_finished += 1

    def _request(self) -> GenerationRequest:
        chance, n_ctx = self.chance, self.engine.n_ctx
        n_prompt = chance.choice([0, 1, 5, n_ctx // 12, n_ctx // 5, n_ctx + 50])
        system = [7] * min(n_prompt, 30)
        tokens = [*system, *(chance.randrange(256) for _ in range(n_prompt - len(system)))]
        if chance.random() < 0.02:
            tokens.append(10**6)
        return GenerationRequest(
            tokens,
            SamplingOptions(temperature=chance.choice([0.0, 1.0])),
            max_tokens=chance.randrange(1, 60),
            ignore_eos=True,
            stop=chance.choice([(), ("ab",)]),
            deadline_s=chance.choice([None, None, 0.001]),
            priority=chance.randrange(3),
            speculation=chance.choice([None, "prompt-lookup"]),
        )


def soak(
    engine: Engine,
    *,
    n_clients: int,
    seconds: float,
    every_s: float = 10.0,
    observe: Callable[[Report], None] = lambda report: None,
) -> Report:
    """Let the clients loose for ``seconds``; what they saw, added up."""
    clients = [Client(engine, seed) for seed in range(n_clients)]
    until = time.monotonic() + seconds
    threads = [threading.Thread(target=c.run, args=(until,), daemon=True) for c in clients]
    process = psutil.Process()
    total = Report()
    for thread in threads:
        thread.start()
    while time.monotonic() < until:
        time.sleep(max(0.0, min(every_s, until - time.monotonic())))
        total.resident_mb.append(round(process.memory_info().rss / 2**20, 1))
        observe(total)
    give_up = time.monotonic() + STUCK_AFTER_S
    for thread in threads:
        thread.join(max(0.0, give_up - time.monotonic()))
    total.n_stuck = sum(thread.is_alive() for thread in threads)
    for client in clients:
        total.n_finished += client.report.n_finished
        total.n_cancelled += client.report.n_cancelled
        total.n_refused += client.report.n_refused
        total.surprises += client.report.surprises
        total.longest_first_event_s = max(
            total.longest_first_event_s, client.report.longest_first_event_s
        )
    total.n_cells_lost = cells_lost(engine)
    return total


def cells_lost(engine: Engine) -> int:
    """Cells that neither a request nor the prefix cache owns, once everything is over."""
    # One more request makes the engine take out whatever was cancelled last.
    list(engine.submit(GenerationRequest([1, 2, 3], max_tokens=2, ignore_eos=True)))
    give_up = time.monotonic() + 10
    while engine.stats().n_running and time.monotonic() < give_up:
        time.sleep(0.01)
    stats = engine.stats()
    return stats.n_cells_used - stats.n_cells_cached


def main() -> None:
    from tests.support.tiny_gguf import write_tiny_llama

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--n-ctx", type=int, default=2048)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = arguments.model or write_tiny_llama(Path(folder) / "tiny.gguf")
        engine = Engine.load(
            model,
            EngineOptions(n_ctx=arguments.n_ctx, max_parallel=12, max_queue=16, n_threads=1),
        )
        report = soak(
            engine,
            n_clients=arguments.clients,
            seconds=arguments.minutes * 60,
            observe=lambda so_far: print(so_far.resident_mb[-1], "MB", flush=True),
        )
        engine.close()
    text = json.dumps(asdict(report), indent=1)
    print(text)
    if arguments.output:
        arguments.output.write_text(text + "\n")


if __name__ == "__main__":
    main()

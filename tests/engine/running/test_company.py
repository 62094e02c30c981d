"""Requests that come together start together, once that was seen to happen."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mofa_gguf.engine.engine import Engine
from mofa_gguf.engine.options import EngineOptions
from mofa_gguf.engine.requests.request import FinishEvent, GenerationRequest
from mofa_gguf.engine.requests.sampling import SamplingOptions
from mofa_gguf.engine.running import company
from mofa_gguf.engine.running.batch import BatchRunner
from mofa_gguf.engine.running.company import Company
from mofa_gguf.engine.scheduling.scheduler import Piece


def seconds_gathering(after: Sequence[int], *, n_arrived: int = 1) -> float:
    gathering, changed = Company(), threading.Condition()
    for n_active in after:
        gathering.note(n_active)
    started = time.monotonic()
    with changed:
        gathering.gather(changed, range(n_arrived))
    return time.monotonic() - started


def test_one_request_after_another_never_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(company, "GATHER_S", 5.0)
    assert seconds_gathering([]) < 1
    assert seconds_gathering([1, 1, 0, 1, 0, 0]) < 1


def test_after_company_the_first_waits_a_moment_and_only_once() -> None:
    assert seconds_gathering([1, 3, 2, 0, 0]) >= company.GATHER_S
    assert seconds_gathering([1, 3, 2, 0, 1, 0]) < company.GATHER_S + 1
    assert seconds_gathering([2, 0], n_arrived=0) < 1


def test_prompts_that_come_together_are_computed_in_one_step(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(company, "GATHER_S", 0.5)
    monkeypatch.setattr(company, "LONGEST_S", 5.0)
    steps: list[int] = []
    run = BatchRunner.run

    def noted(self: BatchRunner, pieces: Sequence[Piece]) -> float:
        steps.append(len(pieces))
        return run(self, pieces)

    monkeypatch.setattr(BatchRunner, "run", noted)
    engine = Engine.load(tiny_model, EngineOptions(n_threads=1, speculation="off"))

    def ask(number: int) -> None:
        prompt = [65 + number, *range(70, 90)]
        request = GenerationRequest(prompt, SamplingOptions(temperature=0), max_tokens=4)
        *_, last = engine.submit(request)
        assert isinstance(last, FinishEvent)

    try:
        for n_active in (2, 0):  # as if two had just been answered together
            engine._loop.company.note(n_active)
        with ThreadPoolExecutor(3) as agents:
            list(agents.map(ask, range(3)))
        assert steps[0] == 3
    finally:
        engine.close()

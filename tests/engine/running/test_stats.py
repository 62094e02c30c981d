"""What an engine says of itself."""

from __future__ import annotations

import json

import pytest

from mofa_gguf.engine.engine import Engine
from mofa_gguf.engine.requests.request import FinishEvent, FinishReason, GenerationRequest, Timings
from mofa_gguf.engine.requests.sampling import SamplingOptions
from mofa_gguf.engine.running.recorder import Recorder, Step
from mofa_gguf.engine.running.stats import (
    Latency,
    Percentiles,
    Speed,
    Throughput,
    latency_of,
    percentile,
    percentiles,
    speed_of,
    throughput_of,
)


def end(first_s: float, n_tokens: int, reason: FinishReason = "stop") -> FinishEvent:
    return FinishEvent(
        reason=reason,
        n_prompt_tokens=1,
        n_cached_tokens=0,
        n_generated_tokens=n_tokens,
        timings=Timings(queue_s=0.0, prefill_s=first_s, decode_s=1.0),
        seed=0,
    )


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [([], 50, None), ([3.0], 95, 3.0), ([1.0, 2.0, 3.0, 4.0], 50, 2.0), ([1.0, 2.0], 95, 2.0)],
)
def test_percentiles(values: list[float], percent: float, expected: float | None) -> None:
    assert percentile(values, percent) == expected


def test_the_speed_of_finished_answers() -> None:
    ends = [end(0.1 * i, 10 * i + 1) for i in range(1, 11)]
    speed = speed_of([*ends, end(99.0, 9999, "cancelled")])
    assert speed == Speed(
        n_answers=10,
        first_token_s_p50=pytest.approx(0.5),
        first_token_s_p95=pytest.approx(1.0),
        tokens_per_s_p50=50.0,
        tokens_per_s_p5=10.0,
    )
    assert speed_of([]) == Speed()


def test_percentiles_of_any_values_in_any_order() -> None:
    values = [float(n) for n in range(100, 0, -1)]
    assert percentiles(values) == Percentiles(100, 50.0, 95.0, 99.0)
    assert percentiles([]) == Percentiles()


def test_latencies_are_those_of_whole_answers_and_of_the_gaps_between_tokens() -> None:
    recorder = Recorder()
    for each in [end(0.5, 3), end(0.25, 3), end(99.0, 3, "cancelled")]:
        recorder.answer(each)
    for gap in (0.1, 0.2, 0.3, 0.4):
        recorder.gap(gap)
    assert latency_of(recorder) == Latency(
        queue_s=Percentiles(2, 0.0, 0.0, 0.0),
        first_token_s=Percentiles(2, 0.25, 0.5, 0.5),
        token_gap_s=Percentiles(4, 0.2, 0.4, 0.4),
    )


def test_rates_are_of_the_steps_that_had_such_tokens() -> None:
    steps = [Step(100, 0, 1.0), Step(50, 2, 1.0), Step(0, 4, 0.5)]
    assert throughput_of(steps) == Throughput(75.0, 4.0)
    assert throughput_of([]) == Throughput()


def test_only_the_latest_are_kept() -> None:
    recorder = Recorder()
    for n in range(5000):
        recorder.gap(float(n))
        recorder.step(recorder.mark(), float(n))
        recorder.answer(end(float(n), 1))
    assert recorder.gaps()[-1] == recorder.steps()[-1].seconds == 4999.0
    assert max(map(len, (recorder.gaps(), recorder.steps(), recorder.answers()))) < 5000


def test_an_engine_counts_what_it_did(engine: Engine) -> None:
    request = GenerationRequest(
        list(b"the same prompt"), SamplingOptions(temperature=0), max_tokens=5, ignore_eos=True
    )
    list(engine.submit(request))
    list(engine.submit(request))
    stats = engine.stats()
    assert stats.n_requests == 2
    assert stats.n_prompt_tokens_computed == 15 + 1
    assert stats.hit_rate == pytest.approx(14 / 30)
    assert stats.n_generated_tokens == 10
    assert stats.n_cells == 256
    assert stats.n_cells_free + stats.n_cells_used == 256
    assert stats.latency.queue_s.n == stats.latency.first_token_s.n == 2
    assert stats.latency.token_gap_s.n == 2 * 4
    assert stats.latency.first_token_s.p99 is not None
    assert stats.throughput.prompt_tokens_per_s is not None
    assert stats.throughput.generated_tokens_per_s is not None
    told = json.loads(json.dumps(stats.to_dict()))
    assert told["hit_rate"] == pytest.approx(14 / 30)
    assert told["latency"]["token_gap_s"]["n"] == 8

"""What an engine says of itself."""

from __future__ import annotations

import pytest

from mofa_gguf.engine.engine import Engine
from mofa_gguf.engine.request import FinishEvent, FinishReason, GenerationRequest, Timings
from mofa_gguf.engine.sampling import SamplingOptions
from mofa_gguf.engine.stats import Speed, percentile, speed_of


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

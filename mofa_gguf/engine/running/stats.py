"""What an engine says of itself: what is going on, counts, and how fast answers came lately."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mofa_gguf.engine.requests.request import FinishEvent
from mofa_gguf.engine.running.recorder import Recorder, Step


@dataclass(frozen=True)
class Percentiles:
    """Of the latest values, in seconds; None where there were none."""

    n: int = 0
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None


@dataclass(frozen=True)
class Speed:
    """How fast the last answers came; None before there was one.

    The first token counts from submission, so it holds waiting and prefill; the rate is that of
    one answer, not of all that run beside it.
    """

    n_answers: int = 0
    first_token_s_p50: float | None = None
    first_token_s_p95: float | None = None
    tokens_per_s_p50: float | None = None
    tokens_per_s_p5: float | None = None


@dataclass(frozen=True)
class Latency:
    """How long the latest answers let their readers wait."""

    queue_s: Percentiles = Percentiles()
    """From submission until the first of its tokens was computed."""
    first_token_s: Percentiles = Percentiles()
    """From submission until the first token of the answer."""
    token_gap_s: Percentiles = Percentiles()
    """Between two tokens of an answer."""


@dataclass(frozen=True)
class Throughput:
    """Tokens per second over the latest steps that had such tokens, all requests together."""

    prompt_tokens_per_s: float | None = None
    generated_tokens_per_s: float | None = None


@dataclass(frozen=True)
class EngineStats:
    """What is going on, and counts since the engine was loaded."""

    n_waiting: int
    n_running: int
    n_requests: int
    n_prompt_tokens_computed: int
    n_prompt_tokens_cached: int
    n_generated_tokens: int
    n_drafted_tokens: int
    n_accepted_tokens: int
    n_steps: int
    """Calls of ``llama_decode``; generated tokens by steps is how well requests were batched."""
    n_cells: int
    n_cells_used: int
    n_cells_cached: int
    """Cells of finished requests, kept for later ones."""
    speed: Speed
    latency: Latency = Latency()
    throughput: Throughput = Throughput()
    n_draft_steps: int = 0
    """Decodes of the draft model."""

    @property
    def n_cells_free(self) -> int:
        """Cells that hold nothing; those of ``n_cells_cached`` can be freed as well."""
        return self.n_cells - self.n_cells_used

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {**asdict(self), "n_cells_free": self.n_cells_free, "hit_rate": self.hit_rate}

    @property
    def hit_rate(self) -> float:
        """Share of prompt tokens that were found cached, 0 to 1."""
        n_tokens = self.n_prompt_tokens_computed + self.n_prompt_tokens_cached
        return self.n_prompt_tokens_cached / n_tokens if n_tokens else 0.0


def speed_of(ends: Sequence[FinishEvent]) -> Speed:
    """The speed of finished answers, oldest or newest first; cancelled ones do not count."""
    finished = [end for end in ends if end.reason != "cancelled"]
    firsts = sorted(end.timings.queue_s + end.timings.prefill_s for end in finished)
    rates = sorted(
        (end.n_generated_tokens - 1) / end.timings.decode_s
        for end in finished
        if end.n_generated_tokens > 1 and end.timings.decode_s > 0
    )
    return Speed(
        n_answers=len(finished),
        first_token_s_p50=percentile(firsts, 50),
        first_token_s_p95=percentile(firsts, 95),
        tokens_per_s_p50=percentile(rates, 50),
        tokens_per_s_p5=percentile(rates, 5),
    )


def latency_of(recorder: Recorder) -> Latency:
    """The waiting times of finished answers; cancelled ones do not count."""
    timings = [end.timings for end in recorder.answers() if end.reason != "cancelled"]
    return Latency(
        queue_s=percentiles(each.queue_s for each in timings),
        first_token_s=percentiles(each.queue_s + each.prefill_s for each in timings),
        token_gap_s=percentiles(recorder.gaps()),
    )


def throughput_of(steps: Sequence[Step]) -> Throughput:
    """The speed of the steps that computed prompts, and of those that generated."""
    prefill = [step for step in steps if step.n_prompt_tokens]
    decode = [step for step in steps if step.n_generated_tokens]
    return Throughput(
        _rate(sum(step.n_prompt_tokens for step in prefill), prefill),
        _rate(sum(step.n_generated_tokens for step in decode), decode),
    )


def _rate(n_tokens: int, steps: Sequence[Step]) -> float | None:
    seconds = sum(step.seconds for step in steps)
    return n_tokens / seconds if seconds > 0 else None


def percentiles(values: Iterable[float]) -> Percentiles:
    """The usual ones of any values."""
    ordered = sorted(values)
    p50, p95, p99 = (percentile(ordered, percent) for percent in (50, 95, 99))
    return Percentiles(len(ordered), p50, p95, p99)


def percentile(ordered: Sequence[float], percent: float) -> float | None:
    """The nearest-rank percentile of ascending values; None of none."""
    if not ordered:
        return None
    rank = max(1, -(-len(ordered) * percent // 100))
    return ordered[int(rank) - 1]

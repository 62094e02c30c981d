"""What an engine says of itself: what is going on, counts, and how fast answers came lately."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mofa_gguf.engine.request import FinishEvent


@dataclass
class Counters:
    """Counts since the engine was loaded."""

    n_prompt_tokens_computed: int = 0
    n_prompt_tokens_cached: int = 0
    n_generated_tokens: int = 0
    n_steps: int = 0


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
class EngineStats:
    """What is going on, and counts since the engine was loaded."""

    n_waiting: int
    n_running: int
    n_requests: int
    n_prompt_tokens_computed: int
    n_prompt_tokens_cached: int
    n_generated_tokens: int
    n_steps: int
    """Calls of ``llama_decode``; generated tokens by steps is how well requests were batched."""
    n_cells: int
    n_cells_used: int
    n_cells_cached: int
    """Cells of finished requests, kept for later ones."""
    speed: Speed

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


def percentile(ordered: Sequence[float], percent: float) -> float | None:
    """The nearest-rank percentile of ascending values; None of none."""
    if not ordered:
        return None
    rank = max(1, -(-len(ordered) * percent // 100))
    return ordered[int(rank) - 1]

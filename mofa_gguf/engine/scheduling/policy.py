"""The scheduler's decisions, as plain functions of values."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mofa_gguf.engine.cache.prefix_tree import common_prefix

MIN_PREFILL = 32
"""Prompt tokens a step takes at least, however slow the machine."""
STALL_S = 0.6
"""How long a prompt may hold up running streams in one step, about."""
HEADROOM = 16
"""Cells a running request should have before it for its answer."""
MIN_WORTH_WAITING = 16
"""Shorter common prefixes are computed again rather than waited for."""
_TOKENS_AT_ONCE = 4


def prefill_budget(*, n_decoding: int, n_batch: int, tokens_per_s: float | None) -> int:
    """Prompt tokens to compute in the next step.

    Alone, a prompt gets the whole batch. Beside running streams it gets what takes about
    ``STALL_S`` at the measured speed of prefill, so that a long prompt never stalls the others.
    """
    room = n_batch - n_decoding
    if n_decoding == 0 or tokens_per_s is None:
        return max(0, room)
    return max(0, min(room, max(MIN_PREFILL, int(tokens_per_s * STALL_S))))


def worth_filling(n_tokens: int) -> bool:
    """Whether one more token makes a batch faster, with weights laid out anew for the CPU.

    llama.cpp multiplies those with four tokens at a time and with what is left over one by one:
    measured on AVX-512, 15 tokens take 78 ms and 16 take 62 ms, 3 take 34 ms and 4 take 24 ms.
    """
    return n_tokens % _TOKENS_AT_ONCE == _TOKENS_AT_ONCE - 1


def should_wait(
    tokens: Sequence[int], *, n_cached: int, in_progress: Iterable[Sequence[int]]
) -> bool:
    """Whether a running request is about to compute more of this prompt than is cached.

    ``in_progress`` are the prompts that are being computed. Waiting for one of them computes the
    common prefix once.
    """
    most = max((common_prefix(tokens, other) for other in in_progress), default=0)
    return min(most, len(tokens) - 1) - n_cached >= MIN_WORTH_WAITING


def fits(*, n_needed: int, n_promised: int, n_available: int, n_running: int) -> bool:
    """Whether a request may start: its prompt fits beside what the running ones still need.

    Some room to answer is asked for each, lest the newcomer be preempted at once. One that would
    be alone always may start: the engine has refused what never fits.
    """
    headroom = HEADROOM * (n_running + 1)
    return n_running == 0 or n_needed + n_promised + headroom <= n_available

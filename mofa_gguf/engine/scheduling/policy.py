"""The scheduler's decisions, as plain functions of values."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mofa_gguf.engine.cache.prefix_tree import common_prefix
from mofa_gguf.engine.planning.attention import TILE as ATTENTION_TILE
from mofa_gguf.engine.planning.sizing import BLOCK, TILE

MIN_PREFILL = 32
"""Prompt tokens a step takes at least, however slow the machine."""
STALL_S = 0.6
"""How long a prompt may hold up running streams in one step, about."""
HEADROOM = 16
"""Cells a running request should have before it for its answer."""
MIN_WORTH_WAITING = 16
"""Shorter common prefixes are computed again rather than waited for."""
_NEARLY = 3
_MOST_OF_A_TILE = 20
_FEW = 8


def prefill_budget(*, n_decoding: int, n_batch: int, tokens_per_s: float | None) -> int:
    """Prompt tokens to compute in the next step.

    Alone, a prompt gets the whole batch. Beside running streams it gets what takes about
    ``STALL_S`` at the measured speed of prefill, so that a long prompt never stalls the others.
    """
    room = n_batch - n_decoding
    if n_decoding == 0 or tokens_per_s is None:
        return max(0, room)
    return max(0, min(room, max(MIN_PREFILL, int(tokens_per_s * STALL_S))))


def worth_adding(n_tokens: int, *, at_once: int) -> int:
    """Tokens that make a batch faster, with weights laid out anew for so many ``at_once``.

    What is left over of blocks of four is multiplied one by one: measured on AVX-512, 15 tokens
    take 78 ms and 16 take 62 ms, 3 take 34 ms and 4 take 24 ms. With AMX, a tile of 32 takes about
    as long with 20: 48 tokens take 115 ms, 63 take 140 and 64 take 114, 31 take 70 and 32 take 63.
    """
    missing = -n_tokens % at_once if at_once else 0
    if at_once == BLOCK:
        return missing if missing == 1 else 0
    nearly = missing <= _NEARLY or (n_tokens > at_once and at_once - missing >= _MOST_OF_A_TILE)
    return missing if nearly else 0


def worth_leaving(sizes: Sequence[int], *, beside: int, at_once: int) -> list[int]:
    """Tokens of pieces of prompts, of each its last ones, that are better left to the next step.

    ``beside``: tokens in the step that are no prompt's. With AMX, few tokens take as long as a
    tile: 65 take 173 ms, where 64 take 114 and one takes 10. And where each piece fills tiles of
    flash attention, none of them goes over the cells of two conversations: four pieces of 65 tokens
    behind 416 each take 844 ms, four of 64 take 694.
    """
    none = [0] * len(sizes)
    if at_once != TILE or not sizes:
        return none
    n_tokens = beside + sum(sizes)
    odd = [size % ATTENTION_TILE if size > ATTENTION_TILE else 0 for size in sizes]
    if 0 < sum(odd) <= _FEW and (n_tokens - sum(odd)) % TILE == 0:
        return odd
    rest = n_tokens % TILE
    if n_tokens > TILE and rest <= _FEW and rest < sizes[-1]:
        return [*none[:-1], rest]
    return none


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

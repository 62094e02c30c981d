"""The best way to place a model: which context, cache types and offload, of all that may be.

What is decided by itself is decided in this order: a context that one can work with, then as many
layers on devices as fit, then as much more context as costs no layer.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from mofa_gguf.engine.options import AUTO, CacheType
from mofa_gguf.engine.planning.costs import Costs
from mofa_gguf.engine.planning.facts import ModelFacts
from mofa_gguf.engine.planning.placement import (
    Budget,
    Cache,
    Offload,
    balanced,
    fits,
    host_adapters,
    host_cache,
    host_weights,
    offloaded_sizes,
    offloads,
    split_by,
)

MIN_AUTO_CTX = 512
GOOD_CTX = 4096
"""Tokens of context that go before layers on a device; more only if it costs none."""
CTX_STEP = 256
_AUTO_CACHE_TYPES: tuple[CacheType, ...] = ("f16", "q8_0")
_SHARE_OF_REST = 2
"""A context chosen by itself may take one half of the host's memory that is left."""


class Wishes(NamedTuple):
    """What was asked for. "auto" leaves it to the plan."""

    n_ctx: int | Literal["auto"] = AUTO
    type_k: CacheType = "f16"
    type_v: CacheType = "f16"
    n_gpu_layers: int | Literal["auto", "all"] = AUTO
    tensor_split: tuple[float, ...] = ()
    n_states: int = 1
    """Sequences that keep a state, for models that have one."""


class Candidate(NamedTuple):
    """One way that fits."""

    offload: Offload
    counts: tuple[int, ...]
    cache: Cache
    rank: int
    """Place among the offloads in the order of their value."""


class Problem(NamedTuple):
    """What a plan is made for and from."""

    facts: ModelFacts
    costs: Costs
    host: Budget
    devices: tuple[Budget, ...]
    wishes: Wishes

    @property
    def types(self) -> tuple[tuple[CacheType, CacheType], ...]:
        """Pairs of cache types to try, the better first."""
        k, v = self.wishes.type_k, self.wishes.type_v
        tried = [(each if k == AUTO else k, each if v == AUTO else v) for each in _AUTO_CACHE_TYPES]
        return tuple(dict.fromkeys(tried))


def search(problem: Problem) -> Candidate | None:
    """The best candidate that fits, or None."""
    best: Candidate | None = None
    for types in problem.types:
        found = _search(problem, types)
        if found is not None and (best is None or _value(found) > _value(best)):
            best = found
    return best


def _value(candidate: Candidate) -> tuple[int, int, int]:
    n_ctx = candidate.cache.n_ctx
    return min(n_ctx, GOOD_CTX), -candidate.rank, n_ctx


def _search(problem: Problem, types: tuple[CacheType, CacheType]) -> Candidate | None:
    wished = problem.wishes.n_ctx
    if wished != AUTO:
        return _best(problem, types, wished, spare=False)
    most = problem.facts.n_ctx_train
    good, least = min(most, GOOD_CTX), min(most, MIN_AUTO_CTX)
    found = _best(problem, types, good, spare=True)
    if found is None:
        smaller = _largest(problem, types, least, good, rank=None)
        return smaller or _best(problem, types, least, spare=False)
    return _largest(problem, types, good, most, rank=found.rank) or found


def _largest(
    problem: Problem, types: tuple[CacheType, CacheType], low: int, high: int, *, rank: int | None
) -> Candidate | None:
    """The candidate with the largest context from ``low`` to ``high``, none ranked below ``rank``.

    ``low`` and ``high`` themselves, and whole steps between them.
    """

    def take(n_ctx: int) -> Candidate | None:
        found = _best(problem, types, n_ctx, spare=True)
        return found if found is not None and (rank is None or found.rank <= rank) else None

    best = take(high)
    if best is not None:
        return best
    best = take(low)
    if best is None:
        return None
    below, above = low // CTX_STEP, -(-high // CTX_STEP)
    while above - below > 1:
        middle = (below + above) // 2
        found = take(middle * CTX_STEP)
        if found is None:
            above = middle
        else:
            below, best = middle, found
    return best


def _best(
    problem: Problem, types: tuple[CacheType, CacheType], n_ctx: int, *, spare: bool
) -> Candidate | None:
    """The most valuable offload that fits with this context.

    ``spare`` leaves as much of the host's memory free as the cache takes.
    """
    cache = Cache(n_ctx, *types, problem.wishes.n_states)
    for rank, offload in enumerate(allowed_offloads(problem)):
        if _host_bytes(problem, offload, cache, spare=spare) > problem.host.n_bytes:
            continue
        counts = _counts(problem, offload, cache)
        if counts is not None:
            return Candidate(offload, tuple(counts), cache, rank)
    return None


def allowed_offloads(problem: Problem) -> list[Offload]:
    """What may be offloaded: one thing if it was asked for, else everything worth trying."""
    wished, facts = problem.wishes.n_gpu_layers, problem.facts
    if not problem.devices or wished == 0:
        return [Offload(0, 0)]
    if wished == AUTO:
        return list(offloads(facts, devices=True))
    n_layers = facts.n_total if wished == "all" or wished < 0 else min(wished, facts.n_total)
    return [Offload(n_layers, max(0, n_layers - 1))]


def _counts(problem: Problem, offload: Offload, cache: Cache) -> list[int] | None:
    sizes = offloaded_sizes(problem.facts, offload, cache)
    overhead = problem.costs.compute.at(cache.n_ctx)
    if not problem.wishes.tensor_split:
        return balanced(sizes, problem.devices, overhead)
    counts = split_by(problem.wishes.tensor_split, len(sizes), len(problem.devices))
    return counts if fits(counts, sizes, problem.devices, overhead) else None


def _host_bytes(problem: Problem, offload: Offload, cache: Cache, *, spare: bool) -> int:
    kept = host_cache(problem.facts, offload, cache)
    return (
        host_weights(problem.facts, offload, problem.costs)
        + host_adapters(problem.facts, offload)
        + kept * (_SHARE_OF_REST if spare else 1)
        + problem.costs.compute.at(cache.n_ctx)
        + problem.costs.n_fixed_bytes
    )

"""What goes where when a model is loaded: a plain function of values.

:func:`make_plan` takes what the model needs (:mod:`~mofa_gguf.engine.planning.facts`,
:mod:`~mofa_gguf.engine.planning.costs`), what the machine has and what was asked for, and gives the
plan: layers on each device, experts kept on the CPU, context, type of the KV cache. It asks no
machine, so it is tested on pretended ones; :mod:`mofa_gguf.engine.planning.fit` puts the real one
in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from mofa_gguf.engine.options import AUTO, CacheType
from mofa_gguf.engine.planning.costs import Costs
from mofa_gguf.engine.planning.facts import ModelFacts
from mofa_gguf.engine.planning.placement import (
    Budget,
    Cache,
    host_adapters,
    host_cache,
    host_weights,
    layer_cache,
    offloaded_sizes,
    split_by,
)
from mofa_gguf.engine.planning.search import (
    MIN_AUTO_CTX,
    Candidate,
    Problem,
    Wishes,
    allowed_offloads,
    search,
)

HOST = "CPU"


@dataclass(frozen=True)
class Share:
    """What one device will hold, in bytes."""

    device: str
    n_layers: int
    weights: int
    cache: int
    compute: int
    other: int
    available: int
    adapters: int = 0

    @property
    def n_bytes(self) -> int:
        """All of it."""
        return self.weights + self.adapters + self.cache + self.compute + self.other


@dataclass(frozen=True)
class Plan:
    """How a model is to be loaded, and what that takes. ``problem`` is None if it fits."""

    model: str
    n_ctx: int
    n_ctx_train: int
    type_k: CacheType
    type_v: CacheType
    n_gpu_layers: int
    n_total: int
    """Layers there are, the output included."""
    host: Share
    devices: tuple[Share, ...] = ()
    """Only those that get layers, in llama.cpp's order."""
    cpu_experts: tuple[int, ...] = ()
    """Offloaded layers whose experts stay in the host's memory."""
    reasons: tuple[str, ...] = ()
    problem: str | None = None
    remedies: tuple[str, ...] = ()

    @property
    def fits(self) -> bool:
        """Whether it can be loaded."""
        return self.problem is None

    @property
    def n_bytes(self) -> int:
        """What it takes on all devices together."""
        return self.host.n_bytes + sum(share.n_bytes for share in self.devices)

    @property
    def tensor_split(self) -> tuple[float, ...]:
        """Layers for each device, as llama.cpp takes it."""
        return tuple(float(share.n_layers) for share in self.devices)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        values = asdict(self)
        for share, row in zip(
            (self.host, *self.devices), (values["host"], *values["devices"]), strict=True
        ):
            row["n_bytes"] = share.n_bytes
        return {**values, "fits": self.fits, "n_bytes": self.n_bytes}


def make_plan(
    facts: ModelFacts,
    costs: Costs,
    *,
    host: Budget,
    devices: Sequence[Budget] = (),
    wishes: Wishes | None = None,
) -> Plan:
    """The plan for a model on a host with these devices.

    A plan that does not fit is the smallest that was asked for, with ``problem`` set.
    """
    problem = Problem(facts, costs, host, tuple(devices), wishes or Wishes())
    best = search(problem)
    return _describe(problem, best) if best is not None else _failed(problem)


def _describe(problem: Problem, candidate: Candidate) -> Plan:
    facts, costs = problem.facts, problem.costs
    offload, cache = candidate.offload, candidate.cache
    n_layers = len(facts.layers)
    host = Share(
        HOST,
        facts.n_total - offload.n_layers,
        host_weights(facts, offload, costs),
        host_cache(facts, offload, cache),
        costs.compute.at(cache.n_ctx),
        costs.n_fixed_bytes,
        problem.host.n_bytes,
        host_adapters(facts, offload),
    )
    first = n_layers - max(0, offload.n_layers - 1)
    plan = Plan(
        model=facts.name,
        n_ctx=cache.n_ctx,
        n_ctx_train=facts.n_ctx_train,
        type_k=cache.type_k,
        type_v=cache.type_v,
        n_gpu_layers=offload.n_layers,
        n_total=facts.n_total,
        host=host,
        devices=_shares(problem, candidate),
        cpu_experts=tuple(
            i for i in range(first, n_layers - offload.n_expert_layers)
            if facts.layers[i].n_expert_bytes
        ),
    )  # fmt: skip
    return replace(plan, reasons=_reasons(problem, plan))


def _shares(problem: Problem, candidate: Candidate) -> tuple[Share, ...]:
    facts, offload, cache = problem.facts, candidate.offload, candidate.cache
    sizes = offloaded_sizes(facts, offload, cache)
    first = len(facts.layers) - max(0, offload.n_layers - 1)
    shares, at = [], 0
    for budget, n in zip(problem.devices, candidate.counts, strict=True):
        if not n:
            continue
        layers = range(first + at, min(first + at + n, len(facts.layers)))
        kept = sum(layer_cache(facts, i, cache) for i in layers)
        adapters = sum(facts.layers[i].n_adapter_bytes for i in layers)
        adapters += facts.n_output_adapter_bytes if at + n == len(sizes) else 0
        weights = sum(sizes[at : at + n]) - kept - adapters
        compute = problem.costs.compute.at(cache.n_ctx)
        shares.append(Share(budget.name, n, weights, kept, compute, 0, budget.n_bytes, adapters))
        at += n
    return tuple(shares)


def _reasons(problem: Problem, plan: Plan) -> tuple[str, ...]:
    """Why the plan is not simply everything on the first device with the trained context."""
    wishes, reasons = problem.wishes, []
    if wishes.n_gpu_layers == AUTO and problem.devices:
        if plan.n_gpu_layers == plan.n_total:
            reasons.append(f"all {plan.n_total} layers fit on {_names(plan)}")
        elif plan.n_gpu_layers:
            reasons.append(
                f"{plan.n_gpu_layers} of {plan.n_total} layers fit on {_names(plan)}, "
                "the rest stays on the CPU"
            )
        else:
            reasons.append("no device has room for even one layer: everything stays on the CPU")
    if plan.cpu_experts:
        n = len(plan.cpu_experts)
        reasons.append(
            f"the experts of {n} layer{'' if n == 1 else 's'} stay on the CPU, since each token "
            "uses a few of them only"
        )
    if wishes.n_ctx == AUTO:
        if plan.n_ctx == plan.n_ctx_train:
            reasons.append(f"context: the {plan.n_ctx} tokens the model was trained for")
        else:
            reasons.append(
                f"context: {plan.n_ctx} of the {plan.n_ctx_train} tokens the model was trained "
                "for, as memory allows"
            )
    if AUTO in (wishes.type_k, wishes.type_v):
        reasons.append(f"KV cache: {plan.type_k}/{plan.type_v} is the best that fits")
    return tuple(reasons)


def _names(plan: Plan) -> str:
    return " and ".join(share.device for share in plan.devices)


def _failed(problem: Problem) -> Plan:
    """The smallest plan that was asked for, and what is wrong with it."""
    from mofa_gguf.engine.planning.remedies import remedies

    n_ctx = problem.wishes.n_ctx
    cache = Cache(
        min(problem.facts.n_ctx_train, MIN_AUTO_CTX) if n_ctx == AUTO else n_ctx,
        *problem.types[-1],
        problem.wishes.n_states,
    )
    tried = allowed_offloads(problem)
    # Without layers on devices the host has everything, the least of all wishes to a device.
    offload = next((each for each in tried if not each.n_layers), tried[0])
    sizes = offloaded_sizes(problem.facts, offload, cache)
    counts = split_by(
        problem.wishes.tensor_split or tuple(float(each.n_bytes) for each in problem.devices),
        len(sizes),
        len(problem.devices),
    )
    plan = _describe(problem, Candidate(offload, tuple(counts), cache, 0))
    short = [each for each in (plan.host, *plan.devices) if each.n_bytes > each.available]
    # A run of layers may fit nowhere although the sums do: then the largest share is named.
    worst = max(short or plan.devices or [plan.host], key=lambda each: each.n_bytes)
    return replace(plan, reasons=(), problem=_wording(worst), remedies=remedies(problem))


def _wording(share: Share) -> str:
    parts = [("weights", share.weights), ("adapters", share.adapters)]
    parts += [("KV cache and states", share.cache)]
    parts += [("buffers", share.compute + share.other)]
    listed = ", ".join(f"{name} {mib(n)}" for name, n in parts if n)
    where = "memory" if share.device == HOST else f"memory of {share.device}"
    return (
        f"it needs {mib(share.n_bytes)} of {where} ({listed}) and {mib(share.available)} "
        "can be taken"
    )


def mib(n_bytes: int) -> str:
    """Bytes for people, in MiB or GiB."""
    return f"{n_bytes / 2**20:,.0f} MiB" if n_bytes < 2**32 else f"{n_bytes / 2**30:,.1f} GiB"

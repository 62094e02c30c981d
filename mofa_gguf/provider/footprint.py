"""How much memory a model will take, told before it is loaded."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from mofa_gguf.engine.drafting.draft_model import draft_options
from mofa_gguf.engine.files.header import read_header
from mofa_gguf.engine.machine.devices import gpus
from mofa_gguf.engine.machine.memory import HostMemory, Room, host_memory
from mofa_gguf.engine.options import EngineOptions
from mofa_gguf.engine.planning.fit import plan_load

_SHARE_OF_FREE = 0.9
"""Of the memory that is free, what an "auto" budget takes: the rest is for the host program."""


@dataclass(frozen=True)
class Footprint:
    """What a model takes, of all devices together, when it is loaded with ``options``."""

    n_bytes: int
    options: EngineOptions
    n_weight_bytes: int = 0
    n_ctx: int = 0


def footprint(path: Path, options: EngineOptions, *, memory_bytes: int | None = None) -> Footprint:
    """Weights, caches and buffers, as the engine plans them; those of a draft model, too.

    With ``memory_bytes`` a context of "auto" becomes a number: what fits into so much of the
    host's memory, or the least there is. Raises ModelFileError, DeviceUnavailable or InvalidOption.
    """
    alone = _alone(path, options, memory_bytes)
    if options.draft_model is None:
        return alone
    draft = _draft(options, alone)
    if memory_bytes is not None and options.n_ctx == "auto":
        alone = _alone(path, options, max(0, memory_bytes - draft.n_bytes))
        draft = _draft(options, alone)
    return Footprint(
        alone.n_bytes + draft.n_bytes,
        alone.options,
        alone.n_weight_bytes + draft.n_weight_bytes,
        alone.n_ctx,
    )


def _alone(path: Path, options: EngineOptions, memory_bytes: int | None) -> Footprint:
    """What a model takes without its draft model."""
    memory = None
    if memory_bytes is not None:
        memory = HostMemory(Room(memory_bytes, "memory_budget"), None, memory_bytes)
    load = plan_load(read_header(path), options, memory=memory)
    plan = load.plan
    if memory is not None and options.n_ctx == "auto":
        options = replace(options, n_ctx=plan.n_ctx)
    weights = sum(share.weights for share in (plan.host, *plan.devices))
    return Footprint(plan.n_bytes, options, weights, plan.n_ctx)


def _draft(options: EngineOptions, target: Footprint) -> Footprint:
    """What the draft model takes beside its target."""
    assert options.draft_model is not None
    return _alone(Path(options.draft_model), draft_options(options, n_ctx=target.n_ctx), None)


def auto_budget() -> int:
    """The budget where none is given: most of the memory that is free now, on every device."""
    free = host_memory().free_bytes + sum(device.free_bytes for device in gpus())
    return int(free * _SHARE_OF_FREE)


def share_of(budget_bytes: int, n_models: int, weights_bytes: int) -> int:
    """The memory that one of several models sizes an "auto" context by.

    An equal share, or, for one whose weights take most of that, its weights and half of what is
    left of the budget: so the models can stay side by side where their weights allow it.
    """
    rest = max(0, budget_bytes - weights_bytes)
    return max(budget_bytes // max(1, n_models), weights_bytes + rest // 2)

"""How much memory a model will take, told before it is loaded."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from mofa_gguf.engine.files.header import read_header
from mofa_gguf.engine.machine.devices import gpus
from mofa_gguf.engine.machine.memory import HostMemory, Room, host_memory
from mofa_gguf.engine.options import EngineOptions
from mofa_gguf.engine.planning.whole import plan_whole

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
    memory = None
    if memory_bytes is not None:
        memory = HostMemory(Room(memory_bytes, "memory_budget"), None, memory_bytes)
    whole = plan_whole(read_header(path), options, memory=memory)
    n_ctx = whole.target.plan.n_ctx
    if memory is not None and options.n_ctx == "auto":
        options = replace(options, n_ctx=n_ctx)
    shares = [share for load in whole.loads for share in (load.plan.host, *load.plan.devices)]
    return Footprint(whole.n_bytes, options, sum(share.weights for share in shares), n_ctx)


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

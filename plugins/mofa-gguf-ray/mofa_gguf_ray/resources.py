"""What a replica takes of a machine, told before there is one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from mofa_gguf.contract import LLMError, QuotaExceeded
from mofa_gguf.settings import GGUFConfig
from mofa_gguf_ray.errors import Failure
from mofa_gguf_ray.settings import ClusterOptions, whole_cores

_PROCESS_BYTES = 256 * 2**20
"""A replica's process without its model."""
_SHARE_OF_FREE = 0.9


@dataclass(frozen=True)
class Machine:
    """What Ray has of a machine of the cluster."""

    name: str
    cpus: float
    gpus: float
    memory_bytes: int


@dataclass(frozen=True)
class Share:
    """What one replica reserves."""

    cpus: float
    gpus: float = 0
    memory_bytes: int = 0

    def fits(self, machine: Machine) -> bool:
        """Whether an empty machine has so much."""
        return (
            self.cpus <= machine.cpus
            and self.gpus <= machine.gpus
            and self.memory_bytes <= machine.memory_bytes
        )

    def actor_options(self) -> dict[str, float]:
        """The same for Ray."""
        options: dict[str, float] = {"num_cpus": self.cpus, "num_gpus": self.gpus}
        return {**options, "memory": self.memory_bytes} if self.memory_bytes else options

    def __str__(self) -> str:
        parts = [f"{self.cpus:g} cores"]
        if self.gpus:
            parts.append(f"{self.gpus:g} GPUs")
        if self.memory_bytes:
            parts.append(_size(self.memory_bytes))
        return ", ".join(parts)


@dataclass(frozen=True)
class Planned:
    """What the load plan of a model says: memory of the host, and its context."""

    memory_bytes: int
    n_ctx: int | None = None


def cores_for(gguf: GGUFConfig, cluster: ClusterOptions, machines: Sequence[Machine]) -> float:
    """The cores that a replica reserves: as told, else an even share of what there is."""
    if cluster.cpus is not None:
        return cluster.cpus
    if gguf.n_threads is not None:
        return float(gguf.n_threads)
    most = max((machine.cpus for machine in machines), default=1.0)
    share = math.floor(sum(machine.cpus for machine in machines) / cluster.replicas.max)
    return float(max(1, min(share, most)))


def replicas_on_one(cluster: ClusterOptions, n_machines: int) -> int:
    """How many replicas a machine has at least, when they are spread evenly."""
    n_replicas = math.ceil(cluster.replicas.max / max(1, n_machines))
    return min(n_replicas, cluster.max_replicas_per_node or n_replicas)


def check_room(share: Share, machines: Sequence[Machine]) -> None:
    """Raises QuotaExceeded if a replica would fit on none of the machines."""
    if any(share.fits(machine) for machine in machines):
        return
    there = "; ".join(f"{m.name} has {Share(m.cpus, m.gpus, m.memory_bytes)}" for m in machines)
    raise QuotaExceeded(
        f"a replica reserves {share}, and no machine of the cluster has so much ({there}); "
        "reserve less (cpus, gpus, memory, n_ctx), or add a machine",
        n_bytes_needed=share.memory_bytes or None,
        n_bytes_free=max((machine.memory_bytes for machine in machines), default=0),
    )


def settled(gguf: GGUFConfig, planned: Planned, cpus: float) -> GGUFConfig:
    """The options that every replica is made with, alike on all machines."""
    changes: dict[str, object] = {}
    if gguf.n_threads is None:
        changes["n_threads"] = whole_cores(cpus)
    if gguf.n_ctx == "auto" and planned.n_ctx is not None:
        changes["n_ctx"] = planned.n_ctx
    return gguf.model_copy(update=changes)


def plan_here(gguf: GGUFConfig, n_replicas: int) -> Planned | Failure:
    """The plan for a model on this machine, of which ``n_replicas`` share the memory.

    The model is converted or downloaded if it is not there yet. Of several models, what their
    ``memory_budget`` says, if it is a number.
    """
    if gguf.models:
        budget = gguf.memory_budget
        return Planned(0 if budget == "auto" else budget + _PROCESS_BYTES)
    from mofa_gguf.provider.errors import translated

    try:
        with translated():
            return _plan(gguf, n_replicas)
    except LLMError as error:
        return Failure.of(error)


def _plan(gguf: GGUFConfig, n_replicas: int) -> Planned:
    from mofa_gguf.engine.files.header import read_header
    from mofa_gguf.engine.machine.memory import host_memory
    from mofa_gguf.engine.planning.fit import plan_load
    from mofa_gguf.provider.footprint import footprint
    from mofa_gguf.provider.loaded import find_draft, find_file
    from mofa_gguf.store import verdict_folder

    file = find_file(gguf, check=_go_on)
    draft = find_draft(gguf)
    options = replace(
        gguf.engine_options(),
        verdicts=str(verdict_folder(gguf.cache_dir)),
        draft_model=str(draft.path) if draft is not None else None,
    )
    room = int(host_memory().free_bytes * _SHARE_OF_FREE / n_replicas)
    taken = footprint(file.path, options, memory_bytes=room if gguf.n_ctx == "auto" else None)
    plan = plan_load(read_header(file.path), taken.options).plan
    on_devices = sum(device.n_bytes for device in plan.devices)
    return Planned(max(0, taken.n_bytes - on_devices) + _PROCESS_BYTES, taken.n_ctx)


def _go_on() -> None:
    """Nobody calls a plan off."""


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 2**30:.1f} GiB" if n_bytes >= 2**30 else f"{n_bytes / 2**20:.0f} MiB"

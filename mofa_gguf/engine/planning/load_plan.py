"""A plan with what a load needs beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from mofa_gguf.engine.errors import OutOfMemory
from mofa_gguf.engine.options import AUTO, EngineOptions
from mofa_gguf.engine.planning.load_params import Placing
from mofa_gguf.engine.planning.plan import Plan

if TYPE_CHECKING:
    from mofa_gguf.engine.planning.embedding import EmbeddingPlan


class LoadPlan(NamedTuple):
    """A plan with what a load needs beside it."""

    plan: Plan
    options: EngineOptions
    """As asked for, but with the cache types and the mapping that were chosen."""
    resident_bytes: int
    """What the process will have grown by: the host's part, and pages of the file that the system
    may take back."""
    limit: str
    """What bounds the host's memory, in words."""
    measured: bool
    """Whether llama.cpp itself told the sizes of its buffers."""
    requested_layers: int | str = AUTO
    embedding: EmbeddingPlan | None = None
    """What the first embedding takes besides; None for a model that does nothing else."""
    prefix_bytes: int = 0
    """Most of the host's memory that parked prefixes may come to take."""

    @property
    def placing(self) -> Placing:
        """Where the layers go."""
        plan = self.plan
        return Placing(
            plan.n_gpu_layers,
            tuple(share.device for share in plan.devices),
            plan.tensor_split,
            plan.cpu_experts,
        )

    @property
    def unseen_bytes(self) -> dict[str, int]:
        """What the system will not see as taken when the model is loaded; see ``ledger``."""
        host = self.plan.host
        mapped = host.weights if self.options.use_mmap else 0
        return {"CPU": mapped + host.compute}

    @property
    def all_bytes(self) -> dict[str, int]:
        """What it takes of the host and of each device."""
        shares = (self.plan.host, *self.plan.devices)
        return {share.device: share.n_bytes for share in shares}

    def check(self) -> None:
        """Raises OutOfMemory if the plan does not fit."""
        plan = self.plan
        if plan.problem is None:
            return
        instead = "; ".join(plan.remedies) or "a smaller model, or more free memory"
        raise OutOfMemory(
            f"{plan.model} cannot be loaded: {plan.problem} ({self.limit}); what would fit: "
            f"{instead}",
            n_bytes=plan.n_bytes,
            available_bytes=plan.host.available + sum(each.available for each in plan.devices),
        )

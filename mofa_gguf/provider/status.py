"""What a provider says of all its models."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from mofa_gguf.engine.running.stats import EngineStats
from mofa_gguf.provider.pool import ModelPool


@dataclass(frozen=True)
class ModelStatus:
    """One model. ``n_bytes`` is an estimate; 0 before its file was looked at."""

    name: str
    stage: str
    """"absent", "finding", "queued", "loading", "ready" or "leaving"."""
    n_users: int
    n_bytes: int
    engine: EngineStats | None
    """Its counts since it was loaded; None while it is not."""


@dataclass(frozen=True)
class ProviderStatus:
    """All models. ``budget_bytes`` is None until an automatic budget is known."""

    models: tuple[ModelStatus, ...]
    used_bytes: int
    budget_bytes: int | None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        models = [
            {**asdict(each), "engine": each.engine.to_dict() if each.engine else None}
            for each in self.models
        ]
        return {**asdict(self), "models": models}


def status_of(pool: ModelPool) -> ProviderStatus:
    """The status of a pool's models."""
    models = []
    for name, (stage, n_users, n_bytes) in pool.states().items():
        loaded = pool.get(name)
        stats = loaded.engine.stats() if loaded is not None else None
        models.append(ModelStatus(name, stage.value, n_users, n_bytes, stats))
    return ProviderStatus(tuple(models), pool.used_bytes, pool.budget_bytes)

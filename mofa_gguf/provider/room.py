"""Who must go so that a model has room: a plain function of values."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

State = Literal["leaving", "idle", "busy"]


@dataclass(frozen=True)
class Tenant:
    """A model that takes memory. ``last_used_s``: when its last user came or the last one left."""

    name: str
    n_bytes: int
    last_used_s: float
    state: State = "idle"
    """Busy is what is used or just being loaded: it cannot be unloaded now."""


@dataclass(frozen=True)
class Room:
    """Who goes, so that there is room: all empty where there is room already.

    The idle can be unloaded once none of the busy is busy any more.
    """

    leaving: tuple[str, ...] = ()
    idle: tuple[str, ...] = ()
    busy: tuple[str, ...] = ()


_ORDER = {"leaving": 0, "idle": 1, "busy": 2}


def make_room(n_bytes: int, budget_bytes: int, tenants: Iterable[Tenant]) -> Room | None:
    """Who must go so that ``n_bytes`` more stay within the budget: None if that never will be.

    Those that leave anyway count first, then the idle, then those in use; among equals the least
    recently used goes first.
    """
    order = sorted(tenants, key=lambda t: (_ORDER[t.state], t.last_used_s, t.name))
    free = budget_bytes - sum(tenant.n_bytes for tenant in order)
    chosen: list[Tenant] = []
    for tenant in order:
        if n_bytes <= free:
            break
        chosen.append(tenant)
        free += tenant.n_bytes
    if n_bytes > free:
        return None
    return Room(*(tuple(t.name for t in chosen if t.state == state) for state in _ORDER))

"""What a provider and its replicas say to each other.

A provider sends ``Work``; the replica answers with a stream of ``Delivery``: the first at once
(taken in), one whenever there is something new, an empty one every ``BEAT_S`` seconds otherwise,
and the last with how it ended. Whoever hears nothing for much longer is talking to nobody.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mofa_gguf_ray.errors import Failure
from mofa_gguf_ray.prefixes import Prefix

if TYPE_CHECKING:
    from mofa_gguf.provider.status import ProviderStatus

BEAT_S = 1.0


@dataclass(frozen=True)
class Work:
    """Something that a replica is asked for.

    ``prefixes`` and ``avoid`` (names of replicas) are for the router beside the provider, and stay
    there.
    """

    operation: str
    arguments: tuple[Any, ...] = ()
    options: tuple[tuple[str, Any], ...] = ()
    prefixes: tuple[Prefix, ...] = ()
    avoid: frozenset[str] = frozenset()

    def __reduce__(self) -> tuple[Any, ...]:
        return Work, (self.operation, self.arguments, self.options)


@dataclass(frozen=True)
class Delivery:
    """What is new of an answer. ``replica`` is told by the first one only."""

    pieces: tuple[Any, ...] = ()
    done: bool = False
    failure: Failure | None = None
    replica: str | None = None


@dataclass(frozen=True)
class Description:
    """What the replicas of a deployment have in common."""

    digest: str
    default_model: str
    models: tuple[str, ...]
    tools: bool
    embedding: bool


@dataclass(frozen=True)
class ReplicaReport:
    """One replica: where it is and what it does."""

    replica: str
    node: str
    """The address of its machine."""
    pid: int
    status: ProviderStatus
    reserved: dict[str, float] = field(default_factory=dict)
    """What Ray keeps free for it there: "CPU", "GPU", "memory" (bytes)."""

"""The providers of a chain: what each is there for, and what became of its requests."""

from __future__ import annotations

from dataclasses import dataclass, field

from mofa_gguf.contract.provider import LLMProvider
from mofa_gguf.host.fallback_policy import CircuitBreaker, FallbackTrigger


@dataclass(frozen=True)
class FallbackSlot:
    """A provider of a chain, and after which of its errors the next is asked."""

    provider: LLMProvider
    trigger: FallbackTrigger = field(default_factory=FallbackTrigger.default_conditions)


@dataclass(frozen=True)
class ProviderSnapshot:
    """What became of the requests to one provider of a chain."""

    name: str
    successes: int = 0
    fallback_failures: int = 0
    circuit_breaker_skips: int = 0


@dataclass(frozen=True)
class FallbackSnapshot:
    """A chain's counts at one moment; ``providers`` in the order of the chain."""

    chain_name: str
    requests_total: int
    fallbacks_total: int
    providers: tuple[ProviderSnapshot, ...]


@dataclass
class WorkingSlot:
    """A slot at work."""

    provider: LLMProvider
    trigger: FallbackTrigger
    breaker: CircuitBreaker | None
    successes: int = 0
    failures: int = 0
    skips: int = 0

"""When a fallback chain leaves a provider for the next: MoFA's conditions, triggers and breaker."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum

from pydantic import ConfigDict

from mofa_gguf.contract.base import U32, U64, ContractModel
from mofa_gguf.contract.errors import (
    AuthError,
    ContextLengthExceeded,
    LLMError,
    ModelNotFound,
    NetworkError,
    ProviderNotSupported,
    QuotaExceeded,
    RateLimited,
    Timeout,
)


class FallbackCondition(str, Enum):
    """A kind of error after which the next provider may be asked."""

    RATE_LIMITED = "rate_limited"
    QUOTA_EXCEEDED = "quota_exceeded"
    NETWORK_ERROR = "network_error"
    TIMEOUT = "timeout"
    AUTH_ERROR = "auth_error"
    PROVIDER_UNAVAILABLE = "provider_unavailable"
    CONTEXT_LENGTH_EXCEEDED = "context_length_exceeded"
    MODEL_NOT_FOUND = "model_not_found"

    def matches(self, error: LLMError) -> bool:
        """Whether an error is of this kind."""
        return isinstance(error, _ERROR_OF[self])

    @classmethod
    def defaults(cls) -> frozenset[FallbackCondition]:
        """The conditions where none are named: failures of a provider, not of the request."""
        return _DEFAULTS


_ERROR_OF: dict[FallbackCondition, type[LLMError]] = {
    FallbackCondition.RATE_LIMITED: RateLimited,
    FallbackCondition.QUOTA_EXCEEDED: QuotaExceeded,
    FallbackCondition.NETWORK_ERROR: NetworkError,
    FallbackCondition.TIMEOUT: Timeout,
    FallbackCondition.AUTH_ERROR: AuthError,
    FallbackCondition.PROVIDER_UNAVAILABLE: ProviderNotSupported,
    FallbackCondition.CONTEXT_LENGTH_EXCEEDED: ContextLengthExceeded,
    FallbackCondition.MODEL_NOT_FOUND: ModelNotFound,
}
_DEFAULTS = frozenset(
    {
        FallbackCondition.RATE_LIMITED,
        FallbackCondition.QUOTA_EXCEEDED,
        FallbackCondition.NETWORK_ERROR,
        FallbackCondition.TIMEOUT,
        FallbackCondition.AUTH_ERROR,
    }
)


@dataclass(frozen=True)
class FallbackTrigger:
    """After which errors the next provider is asked; made by the class methods."""

    conditions: frozenset[FallbackCondition] = frozenset()
    on_every_error: bool = False

    @classmethod
    def on_conditions(cls, conditions: Iterable[FallbackCondition]) -> FallbackTrigger:
        """After errors of these kinds."""
        return cls(frozenset(conditions))

    @classmethod
    def default_conditions(cls) -> FallbackTrigger:
        """After errors of the default kinds."""
        return cls(FallbackCondition.defaults())

    @classmethod
    def any_error(cls) -> FallbackTrigger:
        """After any error of the contract."""
        return cls(on_every_error=True)

    @classmethod
    def never(cls) -> FallbackTrigger:
        """This provider has the last word."""
        return cls()

    def should_fallback(self, error: LLMError) -> bool:
        """Whether the next provider is asked after this error."""
        return self.on_every_error or any(c.matches(error) for c in self.conditions)


class CircuitBreakerConfig(ContractModel):
    """After how many failures in a row a provider is left alone, and for how many seconds."""

    model_config = ConfigDict(extra="forbid")

    failure_threshold: U32 = 3
    cooldown_secs: U64 = 30


class CircuitBreaker:
    """Whether one provider is left alone for a while.

    As MoFA's: after the cooldown the provider is asked again, and the next failure opens the
    circuit at once; a success closes it for good. Safe to use from several threads.
    """

    def __init__(
        self, config: CircuitBreakerConfig, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._config = config
        self._clock = clock
        self._lock = threading.Lock()
        self._n_failures = 0
        self._open_until: float | None = None

    def is_open(self) -> bool:
        """Whether the provider is to be skipped now."""
        with self._lock:
            return self._open_until is not None and self._clock() < self._open_until

    def record_success(self) -> None:
        """The provider answered."""
        with self._lock:
            self._n_failures = 0
            self._open_until = None

    def record_failure(self) -> None:
        """The provider failed, and the next one was asked."""
        with self._lock:
            self._n_failures += 1
            if self._n_failures >= self._config.failure_threshold:
                self._open_until = self._clock() + self._config.cooldown_secs

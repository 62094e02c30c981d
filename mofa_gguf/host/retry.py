"""When and how a failed request is sent again: MoFA's ``LLMRetryPolicy``, as plain values.

Nothing here waits or sends; ``retrying.RetryingProvider`` acts on a policy.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from types import MappingProxyType
from typing import Literal

from mofa_gguf.contract.errors import (
    ApiError,
    AuthError,
    ConfigError,
    ContentFiltered,
    ContextLengthExceeded,
    LLMError,
    NetworkError,
    RateLimited,
    SerializationError,
    Timeout,
)
from mofa_gguf.contract.messages import ChatMessage, Role, TextPart
from mofa_gguf.contract.requests import ChatCompletionRequest

_MAX_DOUBLINGS = 10


class RetryStrategy(str, Enum):
    """What a retry sends: nothing, the same request, or one that tells the model of the error."""

    NO_RETRY = "NoRetry"
    DIRECT_RETRY = "DirectRetry"
    PROMPT_RETRY = "PromptRetry"


class RetryableErrorType(str, Enum):
    """The kinds of errors that a policy tells apart; errors of no kind are never retried."""

    NETWORK = "Network"
    RATE_LIMIT = "RateLimit"
    SERIALIZATION = "Serialization"
    AUTHENTICATION = "Authentication"
    SERVER_ERROR = "ServerError"
    CONTEXT_LENGTH = "ContextLength"
    CONTENT_FILTERED = "ContentFiltered"

    @classmethod
    def from_error(cls, error: LLMError) -> RetryableErrorType | None:
        """The kind of an error; an ``ApiError`` has one if its code starts with 5."""
        if isinstance(error, ApiError):
            return cls.SERVER_ERROR if (error.code or "").startswith("5") else None
        kinds = (kind for classes, kind in _KINDS if isinstance(error, classes))
        return next(kinds, None)


_KINDS: tuple[tuple[tuple[type[LLMError], ...], RetryableErrorType], ...] = (
    ((NetworkError, Timeout), RetryableErrorType.NETWORK),
    ((RateLimited,), RetryableErrorType.RATE_LIMIT),
    ((SerializationError,), RetryableErrorType.SERIALIZATION),
    ((AuthError,), RetryableErrorType.AUTHENTICATION),
    ((ContextLengthExceeded,), RetryableErrorType.CONTEXT_LENGTH),
    ((ContentFiltered,), RetryableErrorType.CONTENT_FILTERED),
)


@dataclass(frozen=True)
class BackoffStrategy:
    """How long to wait before each retry; made by the class methods, times in milliseconds.

    ``jitter_ms`` is the width of the random part, half of it below and half above.
    """

    kind: Literal["fixed", "linear", "exponential"] = "exponential"
    initial_delay_ms: int = 1000
    increment_ms: int = 0
    max_delay_ms: int = 30_000
    jitter_ms: int = 500

    def __post_init__(self) -> None:
        times = (self.initial_delay_ms, self.increment_ms, self.max_delay_ms, self.jitter_ms)
        if min(times) < 0:
            raise ConfigError(f"a backoff's times cannot be negative: {self}", field="backoff")

    @classmethod
    def fixed(cls, delay_ms: int) -> BackoffStrategy:
        """The same delay every time."""
        return cls("fixed", delay_ms, jitter_ms=0)

    @classmethod
    def linear(cls, initial_delay_ms: int, increment_ms: int) -> BackoffStrategy:
        """A delay that grows by the same amount every time."""
        return cls("linear", initial_delay_ms, increment_ms, jitter_ms=0)

    @classmethod
    def exponential(cls, initial_delay_ms: int, max_delay_ms: int) -> BackoffStrategy:
        """A delay that doubles every time, up to a limit."""
        return cls("exponential", initial_delay_ms, max_delay_ms=max_delay_ms, jitter_ms=0)

    @classmethod
    def exponential_with_jitter(
        cls, initial_delay_ms: int, max_delay_ms: int, jitter_ms: int
    ) -> BackoffStrategy:
        """The same, spread out so that many clients do not come back at once."""
        return cls("exponential", initial_delay_ms, max_delay_ms=max_delay_ms, jitter_ms=jitter_ms)

    def delay_s(self, retry: int, *, rng: Callable[[], float] = random.random) -> float:
        """Seconds to wait before a retry, numbered from 0; ``rng`` gives numbers from 0 to 1."""
        if self.kind == "fixed":
            delay_ms = float(self.initial_delay_ms)
        elif self.kind == "linear":
            delay_ms = self.initial_delay_ms + self.increment_ms * retry
        else:
            doubled = self.initial_delay_ms * 2 ** min(retry, _MAX_DOUBLINGS)
            delay_ms = min(doubled, self.max_delay_ms)
        return max(0.0, delay_ms + self.jitter_ms * (rng() - 0.5)) / 1000


def _default_strategies() -> Mapping[RetryableErrorType, RetryStrategy]:
    kind, strategy = RetryableErrorType, RetryStrategy
    return MappingProxyType(
        {
            kind.SERIALIZATION: strategy.PROMPT_RETRY,
            kind.NETWORK: strategy.DIRECT_RETRY,
            kind.RATE_LIMIT: strategy.DIRECT_RETRY,
            kind.SERVER_ERROR: strategy.DIRECT_RETRY,
            kind.AUTHENTICATION: strategy.NO_RETRY,
            kind.CONTEXT_LENGTH: strategy.NO_RETRY,
            kind.CONTENT_FILTERED: strategy.NO_RETRY,
        }
    )


_RETRY_ON = frozenset(
    {
        RetryableErrorType.NETWORK,
        RetryableErrorType.RATE_LIMIT,
        RetryableErrorType.SERIALIZATION,
        RetryableErrorType.SERVER_ERROR,
    }
)


@dataclass(frozen=True)
class LLMRetryPolicy:
    """How often, after which errors, after what wait and how a request is sent again.

    ``max_attempts`` counts the first one as well.
    """

    max_attempts: int = 3
    backoff: BackoffStrategy = BackoffStrategy()
    default_strategy: RetryStrategy = RetryStrategy.PROMPT_RETRY
    error_strategies: Mapping[RetryableErrorType, RetryStrategy] = field(
        default_factory=_default_strategies
    )
    retry_on: frozenset[RetryableErrorType] = _RETRY_ON

    def __post_init__(self) -> None:
        if self.max_attempts < 1:
            raise ConfigError(
                f"max_attempts counts the first attempt and is at least 1, not {self.max_attempts}",
                field="max_attempts",
            )

    @classmethod
    def no_retry(cls) -> LLMRetryPolicy:
        """Every error is final."""
        return cls(
            max_attempts=1,
            backoff=BackoffStrategy.fixed(0),
            default_strategy=RetryStrategy.NO_RETRY,
            retry_on=frozenset(),
        )

    @classmethod
    def with_max_attempts(cls, max_attempts: int) -> LLMRetryPolicy:
        """The default policy with another number of attempts, at least 1."""
        return cls(max_attempts=max(1, max_attempts))

    def with_backoff(self, backoff: BackoffStrategy) -> LLMRetryPolicy:
        """The same policy with other waits."""
        return replace(self, backoff=backoff)

    def strategy_for_error(self, error: LLMError) -> RetryStrategy:
        """How a request is sent again after this error, if it is."""
        kind = RetryableErrorType.from_error(error)
        if kind is None:
            return self.default_strategy
        return self.error_strategies.get(kind, self.default_strategy)

    def should_retry_error(self, error: LLMError) -> bool:
        """Whether a request is sent again after this error, attempts permitting."""
        kind = RetryableErrorType.from_error(error)
        wanted = kind is not None and kind in self.retry_on
        return wanted and self.strategy_for_error(error) is not RetryStrategy.NO_RETRY


def retry_request(
    request: ChatCompletionRequest, error: LLMError, strategy: RetryStrategy
) -> ChatCompletionRequest:
    """The request to send after an error.

    ``PROMPT_RETRY`` tells the model in the system message, behind all that stands there, so that
    the beginning of the prompt stays what it was and is found in a prefix cache. ``request`` is the
    first one sent: contexts of several retries do not pile up.
    """
    if strategy is not RetryStrategy.PROMPT_RETRY:
        return request
    context = f"[RETRY CONTEXT: the previous answer was refused: {error}. Answer with valid JSON.]"
    messages = list(request.messages)
    place = next((n for n, m in enumerate(messages) if m.role is Role.SYSTEM), None)
    if place is None:
        messages.insert(0, ChatMessage.system(context))
    else:
        messages[place] = _with_text(messages[place], context)
    return request.model_copy(update={"messages": messages})


def _with_text(message: ChatMessage, text: str) -> ChatMessage:
    if isinstance(message.content, list):
        content: str | list[object] = [*message.content, TextPart(text=text)]
    else:
        content = f"{message.content}\n\n{text}" if message.content else text
    return message.model_copy(update={"content": content})

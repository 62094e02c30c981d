"""What can go wrong with a language model: MoFA's ``LLMError``, one exception a variant.

    LLMError
    ├── ApiError                 the backend failed (``code``, "500" for a failed decode)
    ├── AuthError                credentials are missing or wrong
    ├── RateLimited              too many requests wait already (``limit``, ``retry_after_s``)
    ├── QuotaExceeded            memory or a quota is used up (``n_bytes_needed``, ``n_bytes_free``)
    ├── ModelNotFound            no such model (``model``, ``known``)
    ├── ContextLengthExceeded    the prompt does not fit (``n_tokens``, ``n_ctx``)
    ├── ContentFiltered          a filter withheld the answer
    ├── NetworkError             the backend cannot be reached
    ├── Timeout                  a deadline passed (``timeout_s``)
    ├── SerializationError       JSON that is not what was asked for (``content``)
    ├── ConfigError              a bad option or file (``field``, ``path``, ``known``)
    ├── ProviderNotSupported     the provider or model cannot do this (``provider``, ``known``)
    └── Other                    everything else, cancellation included

``str(error)`` is the text that MoFA's Rust side displays for the variant, with one difference: Rust
prints ``ApiError``'s code in debug form (``Some("500")``), here it is the bare code.
``error.message`` is the sentence without the variant's prefix. The data attributes are additions of
the Python side; they default to None, or to an empty tuple for ``known``.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar


class LLMError(Exception):
    """Base of every error of the contract."""

    prefix: ClassVar[str] = "LLM error"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def __str__(self) -> str:
        return f"{self.prefix}: {self.message}"


class ApiError(LLMError):
    """The backend failed; a code that starts with "5" marks a failure worth retrying."""

    prefix = "API error"

    def __init__(self, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.code = code

    def __str__(self) -> str:
        return f"{self.prefix}: {self.message} (code: {self.code})"


class AuthError(LLMError):
    """Credentials are missing or were refused."""

    prefix = "Authentication failed"


class RateLimited(LLMError):
    """Too many requests at once; for a local model: its queue is full."""

    prefix = "Rate limited"

    def __init__(
        self, message: str, *, limit: int | None = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.limit = limit
        self.retry_after_s = retry_after_s


class QuotaExceeded(LLMError):
    """A quota is used up; for a local model: RAM or GPU memory ran out."""

    prefix = "Quota exceeded"

    def __init__(
        self,
        message: str,
        *,
        n_bytes_needed: int | None = None,
        n_bytes_free: int | None = None,
    ) -> None:
        super().__init__(message)
        self.n_bytes_needed = n_bytes_needed
        self.n_bytes_free = n_bytes_free


class ModelNotFound(LLMError):
    """There is no such model, or its file is missing."""

    prefix = "Model not found"

    def __init__(
        self, message: str, *, model: str | None = None, known: Iterable[str] = ()
    ) -> None:
        super().__init__(message)
        self.model = model
        self.known = tuple(known)


class ContextLengthExceeded(LLMError):
    """The prompt has more tokens than the model's context holds."""

    prefix = "Context length exceeded"

    def __init__(
        self, message: str, *, n_tokens: int | None = None, n_ctx: int | None = None
    ) -> None:
        super().__init__(message)
        self.n_tokens = n_tokens
        self.n_ctx = n_ctx


class ContentFiltered(LLMError):
    """A content filter withheld the answer."""

    prefix = "Content filtered"


class NetworkError(LLMError):
    """The backend could not be reached."""

    prefix = "Network error"


class Timeout(LLMError):
    """The request's deadline passed before its answer."""

    prefix = "Request timeout"

    def __init__(self, message: str, *, timeout_s: float | None = None) -> None:
        super().__init__(message)
        self.timeout_s = timeout_s


class SerializationError(LLMError):
    """Text that should have been JSON of a certain shape is not (``content`` is that text)."""

    prefix = "Serialization error"

    def __init__(self, message: str, *, content: str | None = None) -> None:
        super().__init__(message)
        self.content = content


class ConfigError(LLMError):
    """An option, a request parameter or a configuration file is wrong."""

    prefix = "Configuration error"

    def __init__(
        self,
        message: str,
        *,
        field: str | None = None,
        path: Path | None = None,
        known: Iterable[str] = (),
    ) -> None:
        super().__init__(message)
        self.field = field
        self.path = path
        self.known = tuple(known)


class ProviderNotSupported(LLMError):
    """There is no such provider, or the provider or its model cannot do what was asked."""

    prefix = "Provider not supported"

    def __init__(
        self, message: str, *, provider: str | None = None, known: Iterable[str] = ()
    ) -> None:
        super().__init__(message)
        self.provider = provider
        self.known = tuple(known)


class Other(LLMError):
    """Everything that no other variant names; a cancelled stream is one of these."""

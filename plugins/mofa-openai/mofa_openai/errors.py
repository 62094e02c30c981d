"""What servers and the client complain of, as the contract's errors.

OpenAI's own error codes are few, and every neighbour words its errors in its own way; what tells
them apart is, in this order, the code or type in the body, the sentence, the HTTP status:

- OpenAI: platform.openai.com/docs/guides/error-codes
- llama.cpp's server: tools/server/utils.hpp (``exceed_context_size_error`` with its counts)
- vLLM, Ollama, LM Studio, llama-cpp-python: their sentences, as quoted in the tests
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx
import openai

from mofa_gguf.contract import (
    ApiError,
    AuthError,
    ConfigError,
    ContentFiltered,
    ContextLengthExceeded,
    LLMError,
    ModelNotFound,
    NetworkError,
    ProviderNotSupported,
    QuotaExceeded,
    RateLimited,
    SerializationError,
    Timeout,
)

EXPECTED = (openai.OpenAIError, httpx.HTTPError, httpx.StreamError, json.JSONDecodeError)
"""What the client raises when a request fails."""

_QUOTA = frozenset({"insufficient_quota", "billing_hard_limit_reached", "quota_exceeded"})
_CONTEXT = frozenset({"context_length_exceeded", "exceed_context_size_error"})
_MODEL = frozenset({"model_not_found", "model_not_found_error"})
_FILTER = frozenset({"content_filter", "content_policy_violation", "responsibleaipolicyviolation"})
_AUTH = frozenset({"invalid_api_key", "authentication_error"})

_SAYS_CONTEXT = re.compile(
    r"maximum context length|exceeds? (?:the )?(?:available )?context|context (?:window|length) of"
    r"|longer than the (?:maximum )?(?:model|context)|prompt is too long|maximum model length",
    re.IGNORECASE,
)
_SAYS_MODEL = re.compile(
    r"\bmodel\b.{0,200}?(?:not found|does not exist|not exist|unknown|not loaded)"
    r"|no such model|unknown model|try pulling",
    re.IGNORECASE | re.DOTALL,
)
_N_CTX = (
    re.compile(
        r"(?:context (?:length|window|size)(?: of)?(?: only)?|model length)\D{0,12}?(\d+)",
        re.IGNORECASE,
    ),
)
# Best first: what is in the prompt goes before the sum of prompt and answer.
_N_TOKENS = (
    re.compile(r"\((\d+) in (?:the messages|your prompt|the prompt)", re.IGNORECASE),
    re.compile(r"(\d+) input tokens", re.IGNORECASE),
    re.compile(r"requested (?:tokens )?\(?(\d+)", re.IGNORECASE),
)


@dataclass(frozen=True)
class Complaint:
    """A server's error: HTTP status (None inside a stream), code words, sentence and its body."""

    status: int | None
    words: frozenset[str]
    message: str
    body: Mapping[str, Any]
    retry_after_s: float | None = None

    @classmethod
    def of(cls, error: openai.APIError) -> Complaint:
        """What the client's exception says."""
        body = error.body if isinstance(error.body, Mapping) else {}
        inner = body.get("error")
        if isinstance(inner, Mapping):
            body = inner
        named = [body.get("code"), body.get("type")]
        details = body.get("innererror")
        if isinstance(details, Mapping):
            named.append(details.get("code"))
        words = frozenset(str(word).lower() for word in named if word)
        status = getattr(error, "status_code", None)
        if status is None:
            status = next((int(word) for word in words if re.fullmatch(r"[45]\d\d", word)), None)
        response = getattr(error, "response", None)
        headers = response.headers if isinstance(response, httpx.Response) else {}
        text = (
            body.get("message") or body.get("detail") or (inner if isinstance(inner, str) else "")
        )
        return cls(status, words, _sentence(text or error.message), body, _seconds(headers))


def translate(error: Exception, *, secret: str | None = None, timeout_s: float) -> LLMError:
    """The contract's error for one of ``EXPECTED``.

    Args:
        error: what the client raised.
        secret: the API key; wherever a server repeats it, it is left out.
        timeout_s: the deadline, for ``Timeout``.
    """
    result = _translate(error, timeout_s)
    if secret and secret in result.message:
        result.message = result.message.replace(secret, "***")
        result.args = (result.message,)
    return result


def _translate(error: Exception, timeout_s: float) -> LLMError:
    if isinstance(error, openai.APITimeoutError | httpx.TimeoutException):
        return timed_out(timeout_s)
    if isinstance(error, openai.APIConnectionError):
        return NetworkError(f"the server cannot be reached ({_cause_of(error)})")
    if isinstance(error, httpx.HTTPError | httpx.StreamError):
        return NetworkError(f"the connection broke during the answer ({_cause_of(error)})")
    if isinstance(error, openai.APIResponseValidationError | json.JSONDecodeError):
        return SerializationError(f"the server's answer is not JSON of OpenAI's API ({error})")
    if isinstance(error, openai.APIError):
        return _of_complaint(Complaint.of(error))
    return ApiError(_sentence(str(error)))


def timed_out(timeout_s: float) -> Timeout:
    """The error of a deadline that passed."""
    return Timeout(f"the server did not answer within {timeout_s:g} s", timeout_s=timeout_s)


def _of_complaint(told: Complaint) -> LLMError:
    status, words, message = told.status, told.words, told.message
    if words & _CONTEXT or _SAYS_CONTEXT.search(message):
        return _too_long(told)
    if words & _FILTER:
        return ContentFiltered(message)
    if words & _QUOTA or status == 402:
        return QuotaExceeded(message)
    if words & _AUTH or status in (401, 403):
        return AuthError(message)
    if status == 429 or "rate_limit_exceeded" in words:
        return RateLimited(message, retry_after_s=told.retry_after_s)
    if words & _MODEL or (status in (400, 404) and _SAYS_MODEL.search(message)):
        return ModelNotFound(message)
    if status in (408, 504):
        return Timeout(message)
    if status == 501:
        return ProviderNotSupported(message)
    if status == 404:
        return ApiError(f"{message}; does base_url end where the API begins?", code="404")
    if status in (400, 422) and isinstance(told.body.get("param"), str):
        return ConfigError(message, field=told.body["param"])
    return ApiError(message, code=str(status) if status is not None else None)


def _too_long(told: Complaint) -> ContextLengthExceeded:
    n_tokens, n_ctx = told.body.get("n_prompt_tokens"), told.body.get("n_ctx")
    return ContextLengthExceeded(
        told.message,
        n_tokens=n_tokens if isinstance(n_tokens, int) else _first(_N_TOKENS, told.message),
        n_ctx=n_ctx if isinstance(n_ctx, int) else _first(_N_CTX, told.message),
    )


def _first(patterns: tuple[re.Pattern[str], ...], text: str) -> int | None:
    found = (pattern.search(text) for pattern in patterns)
    return next((int(match.group(1)) for match in found if match), None)


def _seconds(headers: Mapping[str, str]) -> float | None:
    try:
        return float(headers.get("retry-after", ""))
    except ValueError:  # absent, or a date
        return None


def _cause_of(error: Exception) -> str:
    cause = error.__cause__ or error
    return _sentence(str(cause)) or type(cause).__name__


def _sentence(text: object) -> str:
    """One line of bounded length; what is not text as JSON."""
    line = text if isinstance(text, str) else json.dumps(text, default=str, ensure_ascii=False)
    line = " ".join(line.split()).rstrip(".")
    return line if len(line) <= 600 else line[:600] + "..."

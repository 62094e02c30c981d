"""The contract's errors as HTTP status and OpenAI's JSON shape.

Codes and types are those of platform.openai.com/docs/guides/error-codes where it has one.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

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
from mofa_gguf.server.json_answer import JsonAnswer

logger = logging.getLogger(__name__)

INVALID = "invalid_request_error"
_SERVER = "server_error"


class HttpError(Exception):
    """A request that never reaches the provider."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        type: str = INVALID,
    ) -> None:
        super().__init__(message)
        self.problem = Problem(status, type, message, code=code, param=param)


@dataclass(frozen=True)
class Problem:
    """What a client is told."""

    status: int
    type: str
    message: str
    code: str | None = None
    param: str | None = None
    data: Mapping[str, Any] | None = None
    """Further keys of the error, such as the counts of a prompt that is too long."""
    retry_after_s: float | None = None
    worth_retrying: bool = True

    def to_dict(self) -> dict[str, Any]:
        """OpenAI's shape."""
        error = {
            "message": self.message,
            "type": self.type,
            "param": self.param,
            "code": self.code,
            **(self.data or {}),
        }
        return {"error": error}

    def response(self) -> JsonAnswer:
        """The answer to the client."""
        headers = {}
        if self.retry_after_s is not None:
            headers["retry-after"] = f"{self.retry_after_s:.0f}"
        if self.status == 401:
            headers["www-authenticate"] = "Bearer"
        if not self.worth_retrying:
            headers["x-should-retry"] = "false"  # OpenAI's clients repeat 429 and 5xx otherwise
        return JsonAnswer(self.to_dict(), self.status, headers=headers)


# Status, type, code and whether repeating the request may help. A failed decode has no row: its
# code, "500" and the like, is its status.
_ROWS: tuple[tuple[type[LLMError], int, str, str | None, bool], ...] = (
    (ConfigError, 400, INVALID, None, False),
    (ContextLengthExceeded, 400, INVALID, "context_length_exceeded", False),
    (ContentFiltered, 400, INVALID, "content_filter", False),
    (AuthError, 401, INVALID, "invalid_api_key", False),
    (ModelNotFound, 404, INVALID, "model_not_found", False),
    (RateLimited, 429, "rate_limit_error", "rate_limit_exceeded", True),
    (QuotaExceeded, 429, "insufficient_quota", "insufficient_quota", False),
    (ProviderNotSupported, 501, "not_supported_error", "not_supported", False),
    (NetworkError, 502, _SERVER, "network_error", True),
    (SerializationError, 502, _SERVER, "serialization_error", True),
    (Timeout, 504, _SERVER, "timeout", True),
)


def problem_of(error: Exception) -> Problem:
    """What to tell of an error; one that is not the contract's is logged and told in general."""
    if isinstance(error, HttpError):
        return error.problem
    if not isinstance(error, LLMError):
        logger.error("a request failed unexpectedly", exc_info=error)
        return Problem(500, _SERVER, "the server failed unexpectedly; its log says how")
    for kind, status, name, code, again in _ROWS:
        if isinstance(error, kind):
            return Problem(
                status,
                name,
                error.message,
                code=code,
                param=getattr(error, "field", None),
                data=_data(error),
                retry_after_s=getattr(error, "retry_after_s", None),
                worth_retrying=again,
            )
    code = error.code if isinstance(error, ApiError) else None
    return Problem(_status_of(code), _SERVER, error.message, code=code)


def _status_of(code: str | None) -> int:
    is_status = code is not None and len(code) == 3 and code.isdigit() and code[0] in "45"
    return int(code) if is_status and code else 500


def _data(error: LLMError) -> dict[str, Any]:
    if isinstance(error, ContextLengthExceeded):
        # llama.cpp's server names them so.
        counts = {"n_prompt_tokens": error.n_tokens, "n_ctx": error.n_ctx}
        return {key: value for key, value in counts.items() if value is not None}
    return {}

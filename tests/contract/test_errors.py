"""The error tree: MoFA's display texts, and data as attributes."""

from __future__ import annotations

import pickle

import pytest

from mofa_gguf.contract import (
    ApiError,
    AuthError,
    ConfigError,
    ContentFiltered,
    ContextLengthExceeded,
    LLMError,
    ModelNotFound,
    NetworkError,
    Other,
    ProviderNotSupported,
    QuotaExceeded,
    RateLimited,
    SerializationError,
    Timeout,
)

DISPLAYED = [
    (ApiError("boom", code="500"), "API error: boom (code: 500)"),
    (ApiError("boom"), "API error: boom (code: None)"),
    (AuthError("m"), "Authentication failed: m"),
    (RateLimited("m"), "Rate limited: m"),
    (QuotaExceeded("m"), "Quota exceeded: m"),
    (ModelNotFound("m"), "Model not found: m"),
    (ContextLengthExceeded("m"), "Context length exceeded: m"),
    (ContentFiltered("m"), "Content filtered: m"),
    (NetworkError("m"), "Network error: m"),
    (Timeout("m"), "Request timeout: m"),
    (SerializationError("m"), "Serialization error: m"),
    (ConfigError("m"), "Configuration error: m"),
    (ProviderNotSupported("m"), "Provider not supported: m"),
    (Other("m"), "LLM error: m"),
]


@pytest.mark.parametrize(("error", "text"), DISPLAYED, ids=lambda value: str(value))
def test_an_error_shows_mofas_text_and_keeps_its_own_sentence(error: LLMError, text: str) -> None:
    assert str(error) == text
    assert error.message in {"m", "boom"}


def test_every_variant_of_mofas_llm_error_has_its_class() -> None:
    assert {type(error) for error, _ in DISPLAYED} == set(LLMError.__subclasses__())
    assert len(LLMError.__subclasses__()) == 13


def test_errors_carry_their_data() -> None:
    too_long = ContextLengthExceeded("m", n_tokens=9000, n_ctx=4096)
    assert (too_long.n_tokens, too_long.n_ctx) == (9000, 4096)
    assert ConfigError("m", field="top_k", known=["a"]).known == ("a",)
    assert ModelNotFound("m", model="x", known=iter("ab")).known == ("a", "b")
    assert QuotaExceeded("m", n_bytes_needed=2, n_bytes_free=1).n_bytes_needed == 2
    assert RateLimited("m", limit=64).limit == 64
    assert Timeout("m", timeout_s=0.5).timeout_s == 0.5


def test_errors_cross_process_borders_whole() -> None:
    error = ContextLengthExceeded("m", n_tokens=2, n_ctx=1)
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error)
    assert (again.n_tokens, again.n_ctx) == (2, 1)

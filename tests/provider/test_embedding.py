"""Requests for vectors, without a model."""

from __future__ import annotations

from typing import Any

import pytest

from mofa_gguf import ConfigError, ContextLengthExceeded, EmbeddingRequest
from mofa_gguf.provider.embedding import check_embedding, check_lengths, embedded


@pytest.mark.parametrize("options", [{}, {"encoding_format": "float"}, {"user": "somebody"}])
def test_what_vectors_can_be_passes(options: dict[str, Any]) -> None:
    check_embedding(EmbeddingRequest(model="", input="a text", **options))


@pytest.mark.parametrize(
    ("options", "field"),
    [({"dimensions": 8}, "dimensions"), ({"encoding_format": "base64"}, "encoding_format")],
)
def test_what_they_cannot_be_is_named(options: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_embedding(EmbeddingRequest(model="", input="a text", **options))
    assert caught.value.field == field


def test_the_text_that_is_too_long_is_named_with_both_numbers() -> None:
    check_lengths([[1] * 4, [1]], 4)
    with pytest.raises(ContextLengthExceeded, match=r"input\.1 has 5 tokens") as caught:
        check_lengths([[1] * 4, [1] * 5], 4)
    assert (caught.value.n_tokens, caught.value.n_ctx) == (5, 4)
    assert "embedding_overflow" in caught.value.message


def test_the_response_has_the_vectors_in_order_and_counts_all_tokens() -> None:
    response = embedded("vectors", [[1.0, 0.0], [0.0, 1.0]], [[5, 6, 7], [8]])
    assert response.model == "vectors"
    assert [(each.index, each.embedding) for each in response.data] == [
        (0, [1.0, 0.0]),
        (1, [0.0, 1.0]),
    ]
    assert (response.usage.prompt_tokens, response.usage.total_tokens) == (4, 4)

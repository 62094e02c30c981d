"""Requests for vectors: what cannot be meant, and the answer."""

from __future__ import annotations

from collections.abc import Sequence

from mofa_gguf.contract import (
    ConfigError,
    ContextLengthExceeded,
    EmbeddingData,
    EmbeddingRequest,
    EmbeddingResponse,
    EmbeddingUsage,
)


def check_embedding(request: EmbeddingRequest) -> None:
    """Raises ConfigError for a length or an encoding that vectors here do not have."""
    if request.dimensions is not None:
        raise ConfigError(
            "dimensions cannot be chosen: a local model's vectors have the model's own length",
            field="dimensions",
        )
    if request.encoding_format not in (None, "float"):
        raise ConfigError(
            f"encoding_format {request.encoding_format!r} is not supported; use 'float'",
            field="encoding_format",
        )


def check_lengths(inputs: Sequence[Sequence[int]], n_max: int) -> None:
    """Raises ContextLengthExceeded, which names the text, for one of too many tokens."""
    for number, tokens in enumerate(inputs):
        if len(tokens) > n_max:
            raise ContextLengthExceeded(
                f"input.{number} has {len(tokens)} tokens and the model embeds texts of up to "
                f'{n_max}; shorten it, or cut such texts with embedding_overflow = "truncate"',
                n_tokens=len(tokens),
                n_ctx=n_max,
            )


def embedded(
    model: str, vectors: Sequence[list[float]], inputs: Sequence[Sequence[int]]
) -> EmbeddingResponse:
    """The response with one vector for each input, which are the texts' tokens, in their order."""
    n_tokens = sum(map(len, inputs))
    return EmbeddingResponse(
        model=model,
        data=[EmbeddingData(index=i, embedding=vector) for i, vector in enumerate(vectors)],
        usage=EmbeddingUsage(prompt_tokens=n_tokens, total_tokens=n_tokens),
    )

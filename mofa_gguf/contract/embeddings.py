"""Embedding requests and responses."""

from __future__ import annotations

from pydantic import Field

from mofa_gguf.contract.base import F32, U32, ContractModel

EmbeddingInput = str | list[str]
"""What is embedded: one text, or several."""


class EmbeddingRequest(ContractModel):
    """Asks for the vectors of texts; an empty ``model`` is the provider's default."""

    model: str
    input: EmbeddingInput
    encoding_format: str | None = None
    dimensions: U32 | None = None
    user: str | None = None

    def texts(self) -> list[str]:
        """The input as a list."""
        return [self.input] if isinstance(self.input, str) else list(self.input)


class EmbeddingData(ContractModel):
    """The vector of the input text number ``index``."""

    object: str = "embedding"
    index: U32
    embedding: list[F32]


class EmbeddingUsage(ContractModel):
    """How many tokens were embedded."""

    prompt_tokens: U32
    total_tokens: U32


class EmbeddingResponse(ContractModel):
    """One vector for each input text."""

    object: str = "list"
    model: str
    data: list[EmbeddingData] = Field(default_factory=list)
    usage: EmbeddingUsage

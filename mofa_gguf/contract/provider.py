"""The interface every language model provider implements: MoFA's ``LLMProvider`` trait."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from types import TracebackType
from typing import TypeVar

from mofa_gguf.contract.chunks import ChatCompletionChunk
from mofa_gguf.contract.embeddings import EmbeddingRequest, EmbeddingResponse
from mofa_gguf.contract.errors import ProviderNotSupported
from mofa_gguf.contract.models import ModelInfo
from mofa_gguf.contract.requests import ChatCompletionRequest
from mofa_gguf.contract.responses import ChatCompletionResponse

ChatStream = AsyncIterator[ChatCompletionChunk]
"""A streamed answer; errors of the contract are raised while it is iterated."""

ProviderT = TypeVar("ProviderT", bound="LLMProvider")


class LLMProvider(ABC):
    """A language model backend.

    ``name`` and ``chat`` must be implemented; the rest has MoFA's defaults. Mind one of them:
    ``supports_tools`` is True, so a model whose template has no tools must say so. A request whose
    model is empty is for the provider's default model. Every failure is an ``LLMError``.

    ``close`` and the ``async with`` form are additions of the Python side, where Rust drops a
    provider.
    """

    @abstractmethod
    def name(self) -> str:
        """The provider's name, such as "gguf"."""

    def default_model(self) -> str:
        """The model that a request without one gets; empty when there is none."""
        return ""

    def supported_models(self) -> list[str]:
        """The models this provider can run."""
        return []

    def supports_model(self, model: str) -> bool:
        """Whether this model is among ``supported_models``."""
        return model in self.supported_models()

    def supports_streaming(self) -> bool:
        """Whether ``chat_stream`` works."""
        return True

    def supports_tools(self) -> bool:
        """Whether the model can call tools."""
        return True

    def supports_vision(self) -> bool:
        """Whether messages may have images."""
        return False

    def supports_embedding(self) -> bool:
        """Whether ``embedding`` works."""
        return False

    @abstractmethod
    async def chat(self, request: ChatCompletionRequest) -> ChatCompletionResponse:
        """Answer a request whole."""

    def chat_stream(self, request: ChatCompletionRequest) -> ChatStream:
        """Answer a request piece by piece; implementations are async generators.

        Closing the generator early (``aclose``) cancels the request. ``contract.streaming`` lists
        what a stream owes its readers.

        Raises:
            ProviderNotSupported: on the first step, unless a provider implements it.
        """
        return _refuse_to_stream(f"Provider {self.name()} does not support streaming")

    async def embedding(self, request: EmbeddingRequest) -> EmbeddingResponse:
        """Give the vectors of texts.

        Raises:
            ProviderNotSupported: unless a provider implements it.
        """
        raise ProviderNotSupported(
            f"Provider {self.name()} does not support embedding", provider=self.name()
        )

    async def health_check(self) -> bool:
        """Whether the provider can answer requests."""
        return True

    async def get_model_info(self, model: str) -> ModelInfo:
        """Describe a model.

        Raises:
            ProviderNotSupported: unless a provider implements it.
        """
        raise ProviderNotSupported(
            f"Provider {self.name()} does not support model info", provider=self.name()
        )

    async def close(self) -> None:  # noqa: B027 - many providers hold nothing
        """Release what the provider holds. May be called twice; requests afterwards fail."""

    async def __aenter__(self: ProviderT) -> ProviderT:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()


async def _refuse_to_stream(message: str) -> ChatStream:
    nothing: tuple[ChatCompletionChunk, ...] = ()
    for chunk in nothing:  # a yield makes this a generator, which raises when it is iterated
        yield chunk
    raise ProviderNotSupported(message)

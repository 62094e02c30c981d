"""A provider that sends failed requests again: MoFA's ``RetryExecutor``."""

from __future__ import annotations

import json
import logging
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import TypeVar

import anyio

from mofa_gguf.contract.chunks import ChatCompletionChunk
from mofa_gguf.contract.embeddings import EmbeddingRequest, EmbeddingResponse
from mofa_gguf.contract.errors import LLMError, RateLimited, SerializationError
from mofa_gguf.contract.messages import ChatMessage
from mofa_gguf.contract.models import ModelInfo
from mofa_gguf.contract.provider import LLMProvider
from mofa_gguf.contract.requests import ChatCompletionRequest
from mofa_gguf.contract.responses import ChatCompletionResponse
from mofa_gguf.contract.tools import Tool
from mofa_gguf.host.formats import unfenced
from mofa_gguf.host.retry import LLMRetryPolicy, RetryStrategy, retry_request
from mofa_gguf.host.streams import closing, until_news
from mofa_gguf.host.wrapping import count_tokens

log = logging.getLogger(__name__)

T = TypeVar("T")


class RetryingProvider(LLMProvider):
    """A provider, with its failed requests sent again as a policy says.

    An answer to a request for JSON that is not JSON counts as failed. A stream is begun again only
    while nothing of the answer has come. In everything else it is the provider behind it.

    Args:
        provider: what answers; closed with this one.
        policy: when and how to try again.
        sleep: waits for so many seconds.
        rng: random numbers from 0 to 1, for the jitter.
    """

    def __init__(
        self,
        provider: LLMProvider,
        policy: LLMRetryPolicy,
        *,
        sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
        rng: Callable[[], float] = random.random,
    ) -> None:
        self.provider = provider
        self.policy = policy
        self._sleep = sleep
        self._rng = rng

    async def chat(self, request: ChatCompletionRequest) -> ChatCompletionResponse:
        """The provider's answer, or the error of the last attempt."""

        async def attempt(request: ChatCompletionRequest) -> ChatCompletionResponse:
            response = await self.provider.chat(request)
            check_json(request, response)
            return response

        return await self._try(attempt, request)

    async def chat_stream(
        self, request: ChatCompletionRequest
    ) -> AsyncGenerator[ChatCompletionChunk, None]:
        """The provider's stream, begun again if it fails before it says anything."""
        retries, current = 0, request
        while True:
            async with closing(self.provider.chat_stream(current)) as chunks:
                try:
                    first = await until_news(chunks)
                except LLMError as error:
                    failure = error
                else:
                    for chunk in first:
                        yield chunk
                    async for chunk in chunks:
                        yield chunk
                    return
            strategy = await self._wait(failure, retries)
            current = retry_request(request, failure, strategy)
            retries += 1

    async def embedding(self, request: EmbeddingRequest) -> EmbeddingResponse:
        """The provider's vectors, or the error of the last attempt."""
        retries = 0
        while True:
            try:
                return await self.provider.embedding(request)
            except LLMError as error:
                await self._wait(error, retries)
            retries += 1

    def name(self) -> str:
        """The provider's name."""
        return self.provider.name()

    def default_model(self) -> str:
        """The provider's default model."""
        return self.provider.default_model()

    def supported_models(self) -> list[str]:
        """The provider's models."""
        return self.provider.supported_models()

    def supports_model(self, model: str) -> bool:
        """Whether the provider supports it."""
        return self.provider.supports_model(model)

    def supports_streaming(self) -> bool:
        """Whether the provider streams."""
        return self.provider.supports_streaming()

    def supports_tools(self) -> bool:
        """Whether the provider knows tools."""
        return self.provider.supports_tools()

    def supports_vision(self) -> bool:
        """Whether the provider takes images."""
        return self.provider.supports_vision()

    def supports_embedding(self) -> bool:
        """Whether the provider embeds."""
        return self.provider.supports_embedding()

    async def health_check(self) -> bool:
        """Whether the provider is healthy."""
        return await self.provider.health_check()

    async def get_model_info(self, model: str) -> ModelInfo:
        """The provider's word on a model."""
        return await self.provider.get_model_info(model)

    async def count_tokens(
        self,
        messages: Sequence[ChatMessage],
        tools: Sequence[Tool] | None = None,
        *,
        model: str = "",
    ) -> int:
        """The provider's count. Raises ProviderNotSupported if it does not count."""
        return await count_tokens(self.provider, messages, tools, model=model)

    async def close(self) -> None:
        """Close the provider."""
        await self.provider.close()

    async def _try(
        self,
        attempt: Callable[[ChatCompletionRequest], Awaitable[T]],
        request: ChatCompletionRequest,
    ) -> T:
        retries, current = 0, request
        while True:
            try:
                return await attempt(current)
            except LLMError as error:
                strategy = await self._wait(error, retries)
                current = retry_request(request, error, strategy)
            retries += 1

    async def _wait(self, error: LLMError, retries: int) -> RetryStrategy:
        """Wait for the next attempt and say what it is to be; raise the error if there is none."""
        if retries + 1 >= self.policy.max_attempts or not self.policy.should_retry_error(error):
            raise error
        delay_s = self.policy.backoff.delay_s(retries, rng=self._rng)
        if isinstance(error, RateLimited):
            delay_s = max(delay_s, error.retry_after_s or 0.0)
        log.warning(
            "%s failed in attempt %d of %d, next in %.1f s: %s",
            self.provider.name(),
            retries + 1,
            self.policy.max_attempts,
            delay_s,
            error,
        )
        await self._sleep(delay_s)
        return self.policy.strategy_for_error(error)


def check_json(request: ChatCompletionRequest, response: ChatCompletionResponse) -> None:
    """Refuse an answer to a request for JSON that does not parse.

    An answer without text, such as a call, is let through, as is a fence of backticks.

    Raises:
        SerializationError: it is not JSON (``content`` is the answer).
    """
    wanted, text = request.response_format, response.content()
    if wanted is None or wanted.format_type == "text" or text is None or response.has_tool_calls():
        return
    try:
        json.loads(unfenced(text))
    except (ValueError, RecursionError) as error:
        raise SerializationError(
            f"JSON validation failed: {error}. Raw content (first 200 chars): {text[:200]}",
            content=text,
        ) from error

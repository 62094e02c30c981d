"""Providers in order of preference, as one: MoFA's ``FallbackChain``."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from mofa_gguf.contract.chunks import ChatCompletionChunk
from mofa_gguf.contract.embeddings import EmbeddingRequest, EmbeddingResponse
from mofa_gguf.contract.errors import LLMError, Other, ProviderNotSupported
from mofa_gguf.contract.messages import ChatMessage
from mofa_gguf.contract.models import ModelInfo
from mofa_gguf.contract.provider import LLMProvider
from mofa_gguf.contract.requests import ChatCompletionRequest
from mofa_gguf.contract.responses import ChatCompletionResponse
from mofa_gguf.contract.tools import Tool
from mofa_gguf.host.fallback_policy import CircuitBreaker, CircuitBreakerConfig, FallbackTrigger
from mofa_gguf.host.fallback_slots import (
    FallbackSlot,
    FallbackSnapshot,
    ProviderSnapshot,
    WorkingSlot,
)
from mofa_gguf.host.streams import closing, until_news
from mofa_gguf.host.wrapping import count_tokens

log = logging.getLogger(__name__)

T = TypeVar("T")
RequestT = TypeVar("RequestT", ChatCompletionRequest, EmbeddingRequest)

DEFAULT_NAME = "fallback-chain"


class FallbackChain(LLMProvider):
    """Asks one provider after the other until one answers.

    The next is asked when a provider raises an error that its trigger names; any other error ends
    the request. The last one's errors always do. A stream is begun again elsewhere only while
    nothing of the answer has come. A request for no model, or for the chain's default model, is
    for each provider's own default model; other model names go to every provider as they are.

    The chain owns its providers: ``close`` closes them.

    Args:
        slots: at least one; a bare provider has the default trigger.
        name: what the chain calls itself.
        circuit_breaker: leaves a provider alone for a while after several failures in a row.
        clock: seconds, for the circuit breakers.

    Raises:
        Other: there is no slot.
    """

    def __init__(
        self,
        slots: Iterable[LLMProvider | FallbackSlot],
        *,
        name: str = DEFAULT_NAME,
        circuit_breaker: CircuitBreakerConfig | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._n_requests = 0
        self._n_fallbacks = 0
        self._slots: list[WorkingSlot] = []
        for item in slots:
            slot = item if isinstance(item, FallbackSlot) else FallbackSlot(item)
            breaker = CircuitBreaker(circuit_breaker, clock=clock) if circuit_breaker else None
            self._slots.append(WorkingSlot(slot.provider, slot.trigger, breaker))
        if not self._slots:
            raise Other(f"FallbackChain({name}): at least one provider is required")
        self._slots[-1].trigger = FallbackTrigger.never()

    def __len__(self) -> int:
        return len(self._slots)

    @property
    def providers(self) -> tuple[LLMProvider, ...]:
        """The providers in their order."""
        return tuple(slot.provider for slot in self._slots)

    def metrics(self) -> FallbackSnapshot:
        """The counts so far."""
        with self._lock:
            return FallbackSnapshot(
                self._name,
                self._n_requests,
                self._n_fallbacks,
                tuple(
                    ProviderSnapshot(s.provider.name(), s.successes, s.failures, s.skips)
                    for s in self._slots
                ),
            )

    async def chat(self, request: ChatCompletionRequest) -> ChatCompletionResponse:
        """The first answer that a provider gives.

        Raises:
            Other: every provider is left alone by its circuit breaker.
            LLMError: the error of the last provider asked.
        """
        return await self._first(
            self._slots, lambda slot: slot.provider.chat(self._for(slot, request))
        )

    async def chat_stream(
        self, request: ChatCompletionRequest
    ) -> AsyncGenerator[ChatCompletionChunk, None]:
        """The stream of the first provider that begins to answer; raises as ``chat`` does.

        Raises:
            ProviderNotSupported: no provider streams.
        """
        able = self._able(lambda provider: provider.supports_streaming(), "streaming")
        failure: LLMError | None = None
        for slot in self._candidates(able):
            async with closing(slot.provider.chat_stream(self._for(slot, request))) as chunks:
                try:
                    first = await until_news(chunks)
                except LLMError as error:
                    failure = self._fall_back(slot, error, is_last=slot is able[-1])
                    continue
                self._succeeded(slot)
                for chunk in first:
                    yield chunk
                async for chunk in chunks:
                    yield chunk
                return
        raise failure or self._nobody_asked()

    async def embedding(self, request: EmbeddingRequest) -> EmbeddingResponse:
        """The vectors of the first provider that gives them; raises as ``chat`` does.

        Raises:
            ProviderNotSupported: no provider embeds.
        """
        able = self._able(lambda provider: provider.supports_embedding(), "embedding")
        return await self._first(
            able, lambda slot: slot.provider.embedding(self._for(slot, request))
        )

    def name(self) -> str:
        """The chain's name."""
        return self._name

    def default_model(self) -> str:
        """The first provider's default model."""
        return self._slots[0].provider.default_model()

    def supported_models(self) -> list[str]:
        """Every provider's models."""
        models = (model for slot in self._slots for model in slot.provider.supported_models())
        return list(dict.fromkeys(models))

    def supports_model(self, model: str) -> bool:
        """Whether any provider supports it."""
        return any(slot.provider.supports_model(model) for slot in self._slots)

    def supports_streaming(self) -> bool:
        """Whether any provider streams."""
        return any(slot.provider.supports_streaming() for slot in self._slots)

    def supports_tools(self) -> bool:
        """Whether any provider knows tools."""
        return any(slot.provider.supports_tools() for slot in self._slots)

    def supports_vision(self) -> bool:
        """Whether any provider takes images."""
        return any(slot.provider.supports_vision() for slot in self._slots)

    def supports_embedding(self) -> bool:
        """Whether any provider embeds."""
        return any(slot.provider.supports_embedding() for slot in self._slots)

    async def health_check(self) -> bool:
        """Whether any provider that is not left alone is healthy."""
        for slot in self._slots:
            if slot.breaker is not None and slot.breaker.is_open():
                continue
            try:
                if await slot.provider.health_check():
                    return True
            except LLMError as error:
                log.info("%s: %s is not healthy: %s", self._name, slot.provider.name(), error)
        return False

    async def get_model_info(self, model: str) -> ModelInfo:
        """What the first provider that supports the model says of it; raises what that raises."""
        knowing = (slot for slot in self._slots if slot.provider.supports_model(model))
        slot = next(knowing, self._slots[0])
        return await slot.provider.get_model_info(model)

    async def count_tokens(
        self,
        messages: Sequence[ChatMessage],
        tools: Sequence[Tool] | None = None,
        *,
        model: str = "",
    ) -> int:
        """The first provider's count. Raises ProviderNotSupported if it does not count."""
        first = self._slots[0].provider
        model = model if first.supports_model(model) else ""
        return await count_tokens(first, messages, tools, model=model)

    async def close(self) -> None:
        """Close every provider, also where one of them fails to.

        Raises:
            LLMError: the first failure.
        """
        failure: LLMError | None = None
        for slot in self._slots:
            try:
                await slot.provider.close()
            except LLMError as error:
                failure = failure or error
        if failure is not None:
            raise failure

    async def _first(
        self, slots: Sequence[WorkingSlot], ask: Callable[[WorkingSlot], Awaitable[T]]
    ) -> T:
        failure: LLMError | None = None
        for slot in self._candidates(slots):
            try:
                answer = await ask(slot)
            except LLMError as error:
                failure = self._fall_back(slot, error, is_last=slot is slots[-1])
            else:
                self._succeeded(slot)
                return answer
        raise failure or self._nobody_asked()

    def _candidates(self, slots: Sequence[WorkingSlot]) -> Iterator[WorkingSlot]:
        """The slots to ask, one after the other, without those left alone."""
        with self._lock:
            self._n_requests += 1
        for slot in slots:
            if slot.breaker is not None and slot.breaker.is_open():
                with self._lock:
                    slot.skips += 1
            else:
                yield slot

    def _nobody_asked(self) -> Other:
        return Other(
            f"FallbackChain({self._name}): all providers unavailable (circuit breakers open)"
        )

    def _able(self, can: Callable[[LLMProvider], bool], what: str) -> list[WorkingSlot]:
        able = [slot for slot in self._slots if can(slot.provider)]
        if not able:
            raise ProviderNotSupported(
                f"FallbackChain({self._name}): no provider supports {what}", provider=self._name
            )
        return able

    def _for(self, slot: WorkingSlot, request: RequestT) -> RequestT:
        """The request as this slot is to have it: the default model is each one's own."""
        model = request.model
        if not model or slot.provider.supports_model(model) or model != self.default_model():
            return request
        return request.model_copy(update={"model": ""})

    def _succeeded(self, slot: WorkingSlot) -> None:
        if slot.breaker is not None:
            slot.breaker.record_success()
        with self._lock:
            slot.successes += 1

    def _fall_back(self, slot: WorkingSlot, error: LLMError, *, is_last: bool) -> LLMError:
        """Note that the next slot is asked, and return the error; raise it if none is."""
        if is_last or not slot.trigger.should_fallback(error):
            raise error
        if slot.breaker is not None:
            slot.breaker.record_failure()
        with self._lock:
            slot.failures += 1
            self._n_fallbacks += 1
        log.warning("%s: %s failed, asking the next: %s", self._name, slot.provider.name(), error)
        return error

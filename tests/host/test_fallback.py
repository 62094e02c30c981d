"""Chains of providers: who is asked when, who is left alone, and what is counted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence

import pytest

from mofa_gguf.contract import (
    ApiError,
    AuthError,
    ChatCompletionChunk,
    ChatCompletionRequest,
    ChatMessage,
    ConfigError,
    ContentFiltered,
    ContextLengthExceeded,
    EmbeddingRequest,
    EmbeddingResponse,
    LLMError,
    ModelNotFound,
    NetworkError,
    Other,
    ProviderNotSupported,
    QuotaExceeded,
    RateLimited,
    SerializationError,
    Timeout,
    Tool,
    gather,
)
from mofa_gguf.host import (
    CircuitBreakerConfig,
    FallbackChain,
    FallbackCondition,
    FallbackSlot,
    FallbackTrigger,
    LLMClient,
    ProviderSnapshot,
)
from mofa_gguf.host.fallback_policy import CircuitBreaker
from mofa_gguf.host.testing import Reply, ScriptedProvider
from mofa_gguf.host.wrapping import count_tokens

ASK = ChatCompletionRequest.new().user_message("hi")

# Every error, and what it is called where a trigger names conditions.
ERRORS: list[tuple[LLMError, str | None]] = [
    (RateLimited("x"), "rate_limited"),
    (QuotaExceeded("x"), "quota_exceeded"),
    (NetworkError("x"), "network_error"),
    (Timeout("x"), "timeout"),
    (AuthError("x"), "auth_error"),
    (ProviderNotSupported("x"), "provider_unavailable"),
    (ContextLengthExceeded("x"), "context_length_exceeded"),
    (ModelNotFound("x"), "model_not_found"),
    (ApiError("x", "500"), None),
    (ContentFiltered("x"), None),
    (SerializationError("x"), None),
    (ConfigError("x"), None),
    (Other("x"), None),
]
BY_DEFAULT = {"rate_limited", "quota_exceeded", "network_error", "timeout", "auth_error"}

BREAKER = CircuitBreakerConfig(failure_threshold=2, cooldown_secs=30)


class Named(ScriptedProvider):
    """A scripted provider with a name, a model and abilities of its own."""

    def __init__(
        self,
        name: str,
        *replies: Reply,
        streams: bool = True,
        embeds: bool = True,
        healthy: bool = True,
    ) -> None:
        super().__init__(replies, model=f"{name}-model")
        self._name = name
        self.streams = streams
        self.embeds = embeds
        self.healthy = healthy
        self.breaks_after: int | None = None

    def name(self) -> str:
        return self._name

    def supports_streaming(self) -> bool:
        return self.streams

    def supports_embedding(self) -> bool:
        return self.embeds

    async def health_check(self) -> bool:
        if not self.healthy:
            raise NetworkError("unreachable")
        return True

    async def embedding(self, request: EmbeddingRequest) -> EmbeddingResponse:
        self._next_reply(ASK)
        return await super().embedding(request)

    async def chat_stream(
        self, request: ChatCompletionRequest
    ) -> AsyncGenerator[ChatCompletionChunk, None]:
        n = 0
        async for chunk in super().chat_stream(request):
            if n == self.breaks_after:
                raise NetworkError("broken")
            n += 1
            yield chunk


class Clock:
    """Time that passes when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class TestTriggers:
    @pytest.mark.parametrize(("error", "name"), ERRORS)
    def test_each_condition_matches_its_error_and_no_other(
        self, error: LLMError, name: str | None
    ) -> None:
        matching = [c.value for c in FallbackCondition if c.matches(error)]
        assert matching == ([] if name is None else [name])

    @pytest.mark.parametrize(("error", "name"), ERRORS)
    def test_default_any_and_never(self, error: LLMError, name: str | None) -> None:
        assert FallbackTrigger.default_conditions().should_fallback(error) is (name in BY_DEFAULT)
        assert FallbackTrigger.any_error().should_fallback(error)
        assert not FallbackTrigger.never().should_fallback(error)

    @pytest.mark.parametrize(("error", "name"), ERRORS)
    async def test_the_next_is_asked_after_the_errors_that_the_trigger_names(
        self, error: LLMError, name: str | None
    ) -> None:
        conditions = [FallbackCondition(name)] if name is not None else []
        for trigger, falls_back in [
            (FallbackTrigger.on_conditions(conditions), name is not None),
            (FallbackTrigger.on_conditions(set(FallbackCondition) - set(conditions)), False),
            (FallbackTrigger.any_error(), True),
            (FallbackTrigger.never(), False),
        ]:
            chain = FallbackChain([FallbackSlot(Named("a", error), trigger), Named("b", "hello")])
            if falls_back:
                assert (await chain.chat(ASK)).content() == "hello"
            else:
                with pytest.raises(type(error)):
                    await chain.chat(ASK)


class TestChain:
    async def test_the_first_that_answers_answers(self) -> None:
        a, b, c = Named("a", NetworkError("x")), Named("b", "hello"), Named("c", "never")
        chain = FallbackChain([a, b, c])
        assert (await chain.chat(ASK)).content() == "hello"
        assert [len(provider.requests) for provider in (a, b, c)] == [1, 1, 0]

    async def test_the_last_ones_error_is_raised_whatever_its_trigger(self) -> None:
        last = FallbackSlot(Named("b", Timeout("late")), FallbackTrigger.any_error())
        with pytest.raises(Timeout, match="late"):
            await FallbackChain([Named("a", NetworkError("x")), last]).chat(ASK)

    def test_a_chain_of_nobody_is_refused(self) -> None:
        with pytest.raises(Other, match="at least one provider is required"):
            FallbackChain([])

    async def test_a_chain_is_a_provider_of_another_chain(self) -> None:
        inner = FallbackChain([Named("a", NetworkError("x")), Named("b", NetworkError("y"))])
        outer = FallbackChain([inner, Named("c", "hello")], name="outer")
        assert (await outer.chat(ASK)).content() == "hello"
        assert (len(outer), outer.name(), inner.name()) == (2, "outer", "fallback-chain")

    async def test_each_provider_gets_its_own_default_model(self) -> None:
        a, b = Named("a", *[NetworkError("x")] * 2), Named("b", "hello", "hello")
        chain = FallbackChain([a, b])
        await chain.chat(ASK)
        await chain.chat(ASK.model_copy(update={"model": chain.default_model()}))
        assert [request.model for request in a.requests] == ["", "a-model"]
        assert [request.model for request in b.requests] == ["", ""]

    async def test_a_model_asked_for_by_name_is_asked_of_every_provider(self) -> None:
        trigger = FallbackTrigger.on_conditions([FallbackCondition.MODEL_NOT_FOUND])
        a, b = Named("a", "never"), Named("b", "hello")
        request = ASK.model_copy(update={"model": "b-model"})
        chain = FallbackChain([FallbackSlot(a, trigger), b])
        assert (await chain.chat(request)).model == "b-model"
        with pytest.raises(ModelNotFound):
            await FallbackChain([a, b]).chat(request)

    def test_it_can_what_any_of_its_providers_can(self) -> None:
        a = Named("a", streams=False, embeds=False)
        assert not FallbackChain([a]).supports_streaming()
        assert not FallbackChain([a]).supports_embedding()
        chain = FallbackChain([a, Named("b")])
        assert chain.supports_streaming()
        assert chain.supports_embedding()
        assert chain.supports_tools()
        assert not chain.supports_vision()
        assert chain.supported_models() == ["a-model", "b-model"]
        assert chain.supports_model("b-model")
        assert chain.default_model() == "a-model"

    async def test_embeddings_come_from_those_who_embed(self) -> None:
        chain = FallbackChain(
            [Named("a", embeds=False), Named("b", RateLimited("full")), Named("c", "ok")]
        )
        request = EmbeddingRequest(model="a-model", input="x")
        assert (await chain.embedding(request)).model == "c-model"
        with pytest.raises(ProviderNotSupported, match="no provider supports embedding"):
            await FallbackChain([Named("a", embeds=False)]).embedding(request)

    async def test_it_is_healthy_while_one_of_them_is(self) -> None:
        assert await FallbackChain([Named("a", healthy=False), Named("b")]).health_check()
        assert not await FallbackChain([Named("a", healthy=False)]).health_check()

    async def test_models_are_described_by_who_has_them(self) -> None:
        chain = FallbackChain([Named("a"), Named("b")])
        assert (await chain.get_model_info("b-model")).id == "b-model"
        assert (await chain.get_model_info("")).id == "a-model"

    async def test_tokens_are_counted_by_the_first(self) -> None:
        class Counting(Named):
            async def count_tokens(
                self, messages: Sequence[ChatMessage], tools: Sequence[Tool] | None = None
            ) -> int:
                return len(messages)

        chain = FallbackChain([Counting("a"), Named("b")])
        assert await count_tokens(chain, ASK.messages) == 1
        with pytest.raises(ProviderNotSupported):
            await count_tokens(FallbackChain([Named("b")]), ASK.messages)

    async def test_closing_closes_all_also_where_one_fails_to(self) -> None:
        class Stuck(Named):
            async def close(self) -> None:
                raise Other("stuck")

        b = Named("b")
        with pytest.raises(Other, match="stuck"):
            await FallbackChain([Stuck("a"), b]).close()
        assert b.closed

    async def test_cancelling_a_request_asks_nobody_else(self) -> None:
        slow, other = ScriptedProvider(["hello"], delay_s=30), Named("b", "never")
        task = asyncio.create_task(FallbackChain([slow, other]).chat(ASK))
        await asyncio.sleep(0)  # the task runs to its first wait
        assert len(slow.requests) == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (other.requests, slow.n_open_streams) == ([], 0)

    def test_clients_use_a_chain_as_any_provider(self) -> None:
        chain = FallbackChain([Named("a", *[NetworkError("x")] * 2), Named("b", "one", "two")])
        with LLMClient(chain) as client:
            assert client.ask("hi") == "one"
            assert "".join(client.ask_stream("hi")) == "two"


class TestStreams:
    async def test_a_stream_falls_back_before_its_first_piece(self) -> None:
        a = Named("a", NetworkError("x"))
        chain = FallbackChain([a, Named("b", "hello you")])
        response = await gather(chain.chat_stream(ASK))
        assert (response.content(), response.model, a.n_open_streams) == ("hello you", "b-model", 0)

    async def test_who_only_said_who_speaks_can_still_be_replaced(self) -> None:
        a, b = Named("a", "hello"), Named("b", "hello you")
        a.breaks_after = 1
        chunks = [chunk async for chunk in FallbackChain([a, b]).chat_stream(ASK)]
        assert {chunk.model for chunk in chunks} == {"b-model"}
        assert [c.choices[0].delta.role for c in chunks].count(None) == len(chunks) - 1

    async def test_after_the_first_piece_an_error_ends_the_stream(self) -> None:
        a, b = Named("a", "hello you"), Named("b", "never")
        a.breaks_after = 2
        pieces = []
        with pytest.raises(NetworkError):  # noqa: PT012
            async for chunk in FallbackChain([a, b]).chat_stream(ASK):
                pieces.append(chunk.choices[0].delta.content)
        assert (pieces, b.requests) == ([None, "hell"], [])

    async def test_those_who_do_not_stream_are_passed_over(self) -> None:
        chain = FallbackChain([Named("a", "never", streams=False), Named("b", "hello")])
        assert (await gather(chain.chat_stream(ASK))).content() == "hello"
        with pytest.raises(ProviderNotSupported, match="no provider supports streaming"):
            await gather(FallbackChain([Named("a", streams=False)]).chat_stream(ASK))

    async def test_the_last_who_streams_has_the_last_word(self) -> None:
        chain = FallbackChain([Named("a", NetworkError("x")), Named("b", streams=False)])
        with pytest.raises(NetworkError):
            await gather(chain.chat_stream(ASK))
        assert chain.metrics().fallbacks_total == 0

    async def test_closing_a_stream_closes_the_providers(self) -> None:
        a = ScriptedProvider(["hello you"])
        stream = FallbackChain([a]).chat_stream(ASK)
        await anext(stream)
        await stream.aclose()
        assert (a.n_open_streams, a.n_cancelled) == (0, 1)


class TestCircuitBreaker:
    def test_it_opens_after_failures_in_a_row_and_closes_after_the_cooldown(self) -> None:
        clock = Clock()
        breaker = CircuitBreaker(BREAKER, clock=clock)
        breaker.record_failure()
        breaker.record_success()
        breaker.record_failure()
        assert not breaker.is_open()
        breaker.record_failure()
        assert breaker.is_open()
        clock.now += 29.9
        assert breaker.is_open()
        clock.now += 0.2
        assert not breaker.is_open()
        breaker.record_failure()  # still failing: no second chance
        assert breaker.is_open()

    def test_the_defaults_are_mofas(self) -> None:
        config = CircuitBreakerConfig()
        assert (config.failure_threshold, config.cooldown_secs) == (3, 30)

    async def test_who_failed_too_often_is_left_alone_for_a_while(self) -> None:
        clock = Clock()
        a = Named("a", NetworkError("1"), NetworkError("2"), "back again")
        chain = FallbackChain([a, Named("b", *["hello"] * 3)], circuit_breaker=BREAKER, clock=clock)
        for _ in range(3):
            assert (await chain.chat(ASK)).content() == "hello"
        assert len(a.requests) == 2
        clock.now += 31
        assert (await chain.chat(ASK)).content() == "back again"

    async def test_an_error_that_is_no_reason_to_fall_back_does_not_count(self) -> None:
        a = Named("a", *[ConfigError("x")] * 3, "fine")
        chain = FallbackChain([a, Named("b")], circuit_breaker=BREAKER, clock=Clock())
        for _ in range(3):
            with pytest.raises(ConfigError):
                await chain.chat(ASK)
        assert (await chain.chat(ASK)).content() == "fine"

    async def test_the_last_is_never_left_alone(self) -> None:
        chain = FallbackChain(
            [Named("a", *[NetworkError("x")] * 9)], circuit_breaker=BREAKER, clock=Clock()
        )
        for _ in range(5):
            with pytest.raises(NetworkError):
                await chain.chat(ASK)

    async def test_where_all_are_left_alone_the_error_says_so(self) -> None:
        # b is the last that embeds, but not the last that chats, where its circuit opens.
        a, b = (Named(name, *[NetworkError("x")] * 2) for name in "ab")
        chain = FallbackChain(
            [a, b, Named("c", "1", "2", embeds=False)], circuit_breaker=BREAKER, clock=Clock()
        )
        for _ in range(2):
            await chain.chat(ASK)
        with pytest.raises(Other, match="all providers unavailable"):
            await chain.embedding(EmbeddingRequest(model="", input="x"))


class TestMetrics:
    async def test_every_request_fallback_success_and_skip_is_counted(self) -> None:
        a, b = Named("a", *[NetworkError("x")] * 2), Named("b", "1", "2", "3")
        chain = FallbackChain([a, b], name="mine", circuit_breaker=BREAKER, clock=Clock())
        await chain.chat(ASK)
        await gather(chain.chat_stream(ASK))
        await chain.chat(ASK)
        snapshot = chain.metrics()
        assert (snapshot.chain_name, snapshot.requests_total, snapshot.fallbacks_total) == (
            "mine",
            3,
            2,
        )
        assert snapshot.providers == (
            ProviderSnapshot("a", fallback_failures=2, circuit_breaker_skips=1),
            ProviderSnapshot("b", successes=3),
        )

    async def test_a_provider_behind_the_one_that_answers_is_not_skipped(self) -> None:
        chain = FallbackChain([Named("a", "1"), Named("b")], circuit_breaker=BREAKER)
        await chain.chat(ASK)
        assert chain.metrics().providers[1] == ProviderSnapshot("b")

    async def test_a_snapshot_does_not_change_later(self) -> None:
        chain = FallbackChain([Named("a", "1")])
        before = chain.metrics()
        await chain.chat(ASK)
        assert (before.requests_total, chain.metrics().requests_total) == (0, 1)


def test_conditions_are_called_as_mofas_files_call_them() -> None:
    read: Callable[[str], FallbackCondition] = FallbackCondition
    assert [read(name).value for _, name in ERRORS if name] == [c.value for c in FallbackCondition]

"""Sending failed requests again: the policy's word, and the provider that keeps it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
    ResponseFormat,
    Role,
    SerializationError,
    TextPart,
    Timeout,
    Tool,
    gather,
)
from mofa_gguf.host import (
    AsyncLLMClient,
    BackoffStrategy,
    LLMClient,
    LLMConfig,
    LLMRetryPolicy,
    RetryableErrorType,
    RetryingProvider,
    RetryStrategy,
)
from mofa_gguf.host.retry import retry_request
from mofa_gguf.host.testing import Reply, ScriptedProvider
from mofa_gguf.host.wrapping import count_tokens

ASK = ChatCompletionRequest.new().user_message("hi")
ASK_JSON = ASK.model_copy(update={"response_format": ResponseFormat.json()})


class Napping:
    """A sleep that only takes notes."""

    def __init__(self) -> None:
        self.naps: list[float] = []

    async def __call__(self, delay_s: float) -> None:
        self.naps.append(delay_s)


def retrying(
    *replies: Reply, policy: LLMRetryPolicy | None = None
) -> tuple[RetryingProvider, ScriptedProvider, Napping]:
    inner, sleep = ScriptedProvider(replies), Napping()
    made = RetryingProvider(inner, policy or LLMRetryPolicy(), sleep=sleep, rng=lambda: 0.5)
    return made, inner, sleep


class TestBackoff:
    @pytest.mark.parametrize(
        ("backoff", "delays"),
        [
            (BackoffStrategy.fixed(100), [0.1, 0.1, 0.1, 0.1]),
            (BackoffStrategy.linear(1000, 500), [1.0, 1.5, 2.0, 2.5]),
            (BackoffStrategy.exponential(1000, 5000), [1.0, 2.0, 4.0, 5.0]),
            (BackoffStrategy(), [1.0, 2.0, 4.0, 8.0]),
        ],
    )
    def test_delays_grow_as_named(self, backoff: BackoffStrategy, delays: list[float]) -> None:
        assert [backoff.delay_s(n, rng=lambda: 0.5) for n in range(4)] == delays

    def test_the_default_is_exponential_from_one_to_thirty_seconds_with_half_a_second_of_jitter(
        self,
    ) -> None:
        assert BackoffStrategy() == BackoffStrategy.exponential_with_jitter(1000, 30_000, 500)
        assert BackoffStrategy().delay_s(99, rng=lambda: 0.5) == 30.0

    @given(st.integers(0, 100), st.floats(0, 1))
    def test_jitter_stays_within_its_width(self, retry: int, number: float) -> None:
        backoff = BackoffStrategy.exponential_with_jitter(100, 1000, 400)
        middle = min(100 * 2 ** min(retry, 10), 1000) / 1000
        delay_s = backoff.delay_s(retry, rng=lambda: number)
        assert delay_s >= 0
        assert abs(delay_s - middle) <= 0.2 + 1e-9

    def test_negative_times_are_refused(self) -> None:
        with pytest.raises(ConfigError, match="cannot be negative"):
            BackoffStrategy.fixed(-1)


class TestPolicy:
    @pytest.mark.parametrize(
        ("error", "is_retried", "strategy"),
        [
            (NetworkError("x"), True, RetryStrategy.DIRECT_RETRY),
            (Timeout("x"), True, RetryStrategy.DIRECT_RETRY),
            (RateLimited("x"), True, RetryStrategy.DIRECT_RETRY),
            (ApiError("x", "503"), True, RetryStrategy.DIRECT_RETRY),
            (SerializationError("x"), True, RetryStrategy.PROMPT_RETRY),
            (ApiError("x", "400"), False, RetryStrategy.PROMPT_RETRY),
            (ApiError("x"), False, RetryStrategy.PROMPT_RETRY),
            (AuthError("x"), False, RetryStrategy.NO_RETRY),
            (ContextLengthExceeded("x"), False, RetryStrategy.NO_RETRY),
            (ContentFiltered("x"), False, RetryStrategy.NO_RETRY),
            (QuotaExceeded("x"), False, RetryStrategy.PROMPT_RETRY),
            (ModelNotFound("x"), False, RetryStrategy.PROMPT_RETRY),
            (ConfigError("x"), False, RetryStrategy.PROMPT_RETRY),
            (ProviderNotSupported("x"), False, RetryStrategy.PROMPT_RETRY),
            (Other("x"), False, RetryStrategy.PROMPT_RETRY),
        ],
    )
    def test_which_errors_are_retried_and_how_is_as_in_mofa(
        self, error: LLMError, is_retried: bool, strategy: RetryStrategy
    ) -> None:
        policy = LLMRetryPolicy()
        assert policy.should_retry_error(error) is is_retried
        assert policy.strategy_for_error(error) is strategy
        assert not LLMRetryPolicy.no_retry().should_retry_error(error)

    def test_a_kind_that_is_retried_with_no_retry_is_not_retried(self) -> None:
        kind = RetryableErrorType.NETWORK
        policy = LLMRetryPolicy(error_strategies={kind: RetryStrategy.NO_RETRY})
        assert not policy.should_retry_error(NetworkError("x"))
        assert policy.should_retry_error(RateLimited("x"))

    def test_there_is_at_least_one_attempt(self) -> None:
        assert LLMRetryPolicy.with_max_attempts(0).max_attempts == 1
        with pytest.raises(ConfigError, match="at least 1"):
            LLMRetryPolicy(max_attempts=0)


class TestPromptRetry:
    def told(self, *messages: ChatMessage) -> Sequence[ChatMessage]:
        request = ChatCompletionRequest(messages=list(messages))
        again = retry_request(request, SerializationError("bad"), RetryStrategy.PROMPT_RETRY)
        assert request.messages == list(messages)
        return again.messages

    def test_the_context_goes_behind_the_system_message_so_that_its_prefix_stays(self) -> None:
        system, user = self.told(ChatMessage.system("Be brief."), ChatMessage.user("hi"))
        assert str(system.content).startswith("Be brief.\n\n[RETRY CONTEXT: ")
        assert "Serialization error: bad" in str(system.content)
        assert user == ChatMessage.user("hi")

    def test_without_a_system_message_it_becomes_one(self) -> None:
        system, _ = self.told(ChatMessage.user("hi"))
        assert system.role is Role.SYSTEM
        assert str(system.content).startswith("[RETRY CONTEXT: ")

    def test_a_system_message_of_parts_gets_one_more(self) -> None:
        parts = ChatMessage(role=Role.SYSTEM, content=[TextPart(text="Be brief.")])
        [system] = self.told(parts)
        assert isinstance(system.content, list)
        assert len(system.content) == 2

    def test_other_strategies_send_the_same_request(self) -> None:
        assert retry_request(ASK, NetworkError("x"), RetryStrategy.DIRECT_RETRY) is ASK


class TestRetrying:
    async def test_a_failed_request_is_sent_again_after_the_backoff(self) -> None:
        provider, inner, sleep = retrying(NetworkError("down"), RateLimited("full"), "hello")
        assert (await provider.chat(ASK)).content() == "hello"
        assert inner.requests == [ASK] * 3
        assert sleep.naps == [1.0, 2.0]

    async def test_after_the_last_attempt_its_error_is_raised(self) -> None:
        provider, inner, sleep = retrying(*[NetworkError(str(n)) for n in range(5)])
        with pytest.raises(NetworkError, match="2"):
            await provider.chat(ASK)
        assert (len(inner.requests), len(sleep.naps)) == (3, 2)

    async def test_an_error_that_no_retry_helps_is_raised_at_once(self) -> None:
        provider, inner, _ = retrying(QuotaExceeded("no memory"), "never")
        with pytest.raises(QuotaExceeded):
            await provider.chat(ASK)
        assert len(inner.requests) == 1

    async def test_a_provider_that_says_when_to_come_back_is_heard(self) -> None:
        provider, _, sleep = retrying(RateLimited("full", retry_after_s=7.5), "hello")
        await provider.chat(ASK)
        assert sleep.naps == [7.5]

    async def test_an_answer_that_is_not_the_json_asked_for_is_asked_for_again(self) -> None:
        provider, inner, _ = retrying("Sure!", "Of course!", '{"a": 1}')
        assert (await provider.chat(ASK_JSON)).content() == '{"a": 1}'
        first, second, third = inner.requests
        assert first == ASK_JSON
        assert "JSON validation failed" in str(second.messages[0].content)
        # Contexts do not pile up: the third tells of the second answer only.
        assert "Of course!" in str(third.messages[0].content)
        assert "Sure!" not in str(third.messages[0].content)

    async def test_json_in_a_fence_will_do_and_so_will_any_text_without_a_format(self) -> None:
        provider, inner, _ = retrying("```json\n{}\n```", "Sure!")
        assert (await provider.chat(ASK_JSON)).content() == "```json\n{}\n```"
        assert (await provider.chat(ASK)).content() == "Sure!"
        assert len(inner.requests) == 2

    async def test_an_answer_that_never_is_json_is_a_serialization_error_with_it(self) -> None:
        provider, _, _ = retrying(*["Sure!"] * 3)
        with pytest.raises(SerializationError) as caught:
            await provider.chat(ASK_JSON)
        assert caught.value.content == "Sure!"

    async def test_a_stream_is_begun_again_before_its_first_piece(self) -> None:
        provider, inner, sleep = retrying(NetworkError("down"), "hello")
        assert (await gather(provider.chat_stream(ASK))).content() == "hello"
        assert (len(inner.requests), sleep.naps, inner.n_open_streams) == (2, [1.0], 0)

    async def test_a_stream_that_fails_after_its_first_piece_is_not_begun_again(self) -> None:
        breaking = Breaking(after=3)
        provider = RetryingProvider(breaking, LLMRetryPolicy(), sleep=Napping())
        pieces = []
        with pytest.raises(NetworkError):  # noqa: PT012
            async for chunk in provider.chat_stream(ASK):
                pieces.append(chunk.choices[0].delta.content)
        assert (pieces, breaking.n_begun) == ([None, "hell", "o yo"], 1)

    async def test_a_stream_that_only_said_who_speaks_is_begun_again(self) -> None:
        breaking = Breaking(after=1)
        provider = RetryingProvider(breaking, LLMRetryPolicy(), sleep=Napping())
        with pytest.raises(NetworkError):
            await gather(provider.chat_stream(ASK))
        assert breaking.n_begun == 3

    async def test_embeddings_are_asked_for_again(self) -> None:
        class Flaky(ScriptedProvider):
            failures = 2

            async def embedding(self, request: EmbeddingRequest) -> EmbeddingResponse:
                if self.failures:
                    self.failures -= 1
                    raise Timeout("late")
                return await super().embedding(request)

        provider = RetryingProvider(Flaky(), LLMRetryPolicy(), sleep=Napping())
        response = await provider.embedding(EmbeddingRequest(model="", input="x"))
        assert len(response.data) == 1

    async def test_in_everything_else_it_is_the_provider_behind_it(self) -> None:
        provider, inner, _ = retrying()
        assert provider.name() == "scripted"
        assert provider.default_model() == "scripted"
        assert provider.supported_models() == ["scripted"]
        assert provider.supports_model("scripted")
        assert provider.supports_embedding()
        assert provider.supports_tools()
        assert provider.supports_streaming()
        assert not provider.supports_vision()
        assert await provider.health_check()
        assert (await provider.get_model_info("")).id == "scripted"
        with pytest.raises(ProviderNotSupported, match="does not count tokens"):
            await count_tokens(provider, [])
        await provider.close()
        assert inner.closed

    async def test_tokens_are_counted_by_a_provider_that_can(self) -> None:
        provider = RetryingProvider(Counting(), LLMRetryPolicy())
        assert await count_tokens(provider, [ChatMessage.user("x")] * 3) == 3


class Breaking(ScriptedProvider):
    """Streams that fail after so many chunks."""

    def __init__(self, *, after: int) -> None:
        super().__init__(["hello you"] * 9)
        self.after = after
        self.n_begun = 0

    async def chat_stream(self, request: ChatCompletionRequest):  # type: ignore[no-untyped-def]
        self.n_begun += 1
        n = 0
        async for chunk in super().chat_stream(request):
            if n == self.after:
                raise NetworkError("broken")
            n += 1
            assert isinstance(chunk, ChatCompletionChunk)
            yield chunk


class Counting(ScriptedProvider):
    """One token a message."""

    async def count_tokens(
        self, messages: Sequence[ChatMessage], tools: Sequence[Tool] | None = None
    ) -> int:
        return len(messages)


class TestClients:
    FAST = LLMRetryPolicy().with_backoff(BackoffStrategy.fixed(0))

    def test_a_policy_holds_for_everything_a_client_asks(self) -> None:
        provider = ScriptedProvider([NetworkError("1"), "a", NetworkError("2"), "b"] * 2)
        with LLMClient(provider, retry=self.FAST) as client:
            assert client.ask("x") == "a"
            assert "".join(client.ask_stream("x")) == "b"
            assert client.run("x").answer == "a"
            assert client.provider is provider

    def test_without_a_policy_errors_are_final(self) -> None:
        with LLMClient(ScriptedProvider([NetworkError("1"), "a"])) as client:
            with pytest.raises(NetworkError):
                client.ask("x")
            assert client.ask("x") == "a"

    @pytest.mark.parametrize(
        ("config", "n_attempts"),
        [
            (LLMConfig(provider="x"), 1),
            (LLMConfig(provider="x", max_retries=0), 1),
            (LLMConfig(provider="x", max_retries=2), 3),
        ],
    )
    def test_a_configs_own_word_on_retries_is_kept(
        self, config: LLMConfig, n_attempts: int
    ) -> None:
        client = AsyncLLMClient(ScriptedProvider(), config)
        asked = client._asked
        assert getattr(asked, "policy", LLMRetryPolicy.no_retry()).max_attempts == n_attempts

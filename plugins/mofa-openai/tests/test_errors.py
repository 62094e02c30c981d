"""What can go wrong with a server, each as the contract's error."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator

import pytest
from mofa_openai import OpenAIConfig, OpenAIProvider
from scripted_server import Reply, ScriptedServer, delta, events, refusal, whole

from mofa_gguf import (
    ApiError,
    AuthError,
    ChatCompletionRequest,
    ConfigError,
    ContentFiltered,
    ContextLengthExceeded,
    EmbeddingRequest,
    LLMError,
    ModelNotFound,
    NetworkError,
    ProviderNotSupported,
    QuotaExceeded,
    RateLimited,
    SerializationError,
    Timeout,
)

ASK = ChatCompletionRequest.new().user_message("Hi")
KEY = "sk-not-for-any-log"


@pytest.fixture
async def provider(server: ScriptedServer) -> AsyncIterator[OpenAIProvider]:
    config = OpenAIConfig(base_url=server.base_url, api_key=KEY, model="small", timeout_s=0.5)
    async with OpenAIProvider(config) as opened:
        yield opened


# What servers answer, in their own words, and what it is.
REFUSALS: dict[str, tuple[Reply, type[LLMError], dict[str, object]]] = {
    "OpenAI, wrong key": (
        refusal(401, "Incorrect API key provided", code="invalid_api_key"),
        AuthError,
        {},
    ),
    "no permission": (refusal(403, "Project does not have access"), AuthError, {}),
    "OpenAI, too fast": (
        refusal(
            429, "Rate limit reached", code="rate_limit_exceeded", headers=[("retry-after", "7")]
        ),
        RateLimited,
        {"retry_after_s": 7.0},
    ),
    "OpenAI, no money": (
        refusal(429, "You exceeded your current quota", code="insufficient_quota"),
        QuotaExceeded,
        {},
    ),
    "OpenRouter, no money": (refusal(402, "Insufficient credits", code=402), QuotaExceeded, {}),
    "OpenAI, no such model": (
        refusal(404, "The model `gpt-9` does not exist", code="model_not_found"),
        ModelNotFound,
        {},
    ),
    "Ollama, no such model": (
        refusal(404, 'model "llama9" not found, try pulling it first', type="api_error"),
        ModelNotFound,
        {},
    ),
    "vLLM, no such model": (
        Reply(('{"object":"error","message":"The model `x` does not exist.","code":404}',), 404),
        ModelNotFound,
        {},
    ),
    "a wrong address": (Reply(('{"detail":"Not Found"}',), 404), ApiError, {"code": "404"}),
    "OpenAI, too long": (
        refusal(
            400,
            "This model's maximum context length is 4097 tokens. However, you requested 5000 "
            "tokens (4900 in the messages, 100 in the completion).",
            code="context_length_exceeded",
        ),
        ContextLengthExceeded,
        {"n_ctx": 4097, "n_tokens": 4900},
    ),
    "llama.cpp, too long": (
        refusal(
            400,
            "the request exceeds the available context size, try increasing it",
            code=400,
            type="exceed_context_size_error",
            n_prompt_tokens=900,
            n_ctx=512,
        ),
        ContextLengthExceeded,
        {"n_ctx": 512, "n_tokens": 900},
    ),
    "vLLM, too long": (
        refusal(
            400,
            "This model's maximum context length is 2048 tokens. However, your request has 3000 "
            "input tokens. Please reduce the length of the input messages.",
            type="BadRequestError",
        ),
        ContextLengthExceeded,
        {"n_ctx": 2048, "n_tokens": 3000},
    ),
    "LM Studio, too long": (
        refusal(400, "The prompt is greater than the context length of only 4096 tokens"),
        ContextLengthExceeded,
        {"n_ctx": 4096},
    ),
    "Azure, filtered": (
        refusal(400, "The response was filtered", code="content_filter"),
        ContentFiltered,
        {},
    ),
    "OpenAI, policy": (
        refusal(400, "Your request was rejected", code="content_policy_violation"),
        ContentFiltered,
        {},
    ),
    "a bad parameter": (
        refusal(400, "Invalid value for temperature", param="temperature", code=None),
        ConfigError,
        {"field": "temperature"},
    ),
    "llama.cpp, not offered": (
        refusal(501, "This server does not support embeddings", type="not_supported_error"),
        ProviderNotSupported,
        {},
    ),
    "llama.cpp, loading": (
        refusal(503, "Loading model", type="unavailable_error", code=503),
        ApiError,
        {"code": "503"},
    ),
    "a broken server": (refusal(500, "boom"), ApiError, {"code": "500"}),
    "a broken proxy": (
        Reply(("<html>Bad Gateway</html>",), 502, "text/html"),
        ApiError,
        {"code": "502"},
    ),
    "a proxy's time-out": (Reply(("",), 504, "text/html"), Timeout, {}),
}


@pytest.mark.parametrize("case", REFUSALS)
async def test_a_refusal_is_the_contracts_error(
    case: str, server: ScriptedServer, provider: OpenAIProvider
) -> None:
    reply, expected, attributes = REFUSALS[case]
    server.says(reply)
    with pytest.raises(LLMError) as raised:
        await provider.chat(ASK)
    assert type(raised.value) is expected
    assert {name: getattr(raised.value, name) for name in attributes} == attributes
    assert "\n" not in str(raised.value)
    with pytest.raises(expected):
        await anext(provider.chat_stream(ASK))
    assert len(server.requests) == 2  # nothing is sent again behind the host's back


BROKEN: dict[str, tuple[Reply, type[LLMError]]] = {
    "no JSON": (Reply(("not json at all",)), SerializationError),
    "a page": (Reply(("<html>Welcome</html>",), 200, "text/html"), SerializationError),
    "a list": (Reply(("[]",)), SerializationError),
    "no choices": (Reply(("{}",)), SerializationError),
    "a choice that is text": (Reply(('{"choices": ["hello"]}',)), SerializationError),
    "content that is a number": (whole({"role": "assistant", "content": 7}), SerializationError),
    "half an answer": (Reply(('{"choices": [',), breaks=True), NetworkError),
    "an answer that never comes": (Reply(("",), stalls=True), Timeout),
}


@pytest.mark.parametrize("case", BROKEN)
async def test_a_broken_answer_is_an_error(
    case: str, server: ScriptedServer, provider: OpenAIProvider
) -> None:
    reply, expected = BROKEN[case]
    server.says(reply)
    with pytest.raises(LLMError) as raised:
        await provider.chat(ASK)
    assert type(raised.value) is expected


HELLO = delta(role="assistant", content="Hel")
BROKEN_STREAMS: dict[str, tuple[Reply, type[LLMError]]] = {
    "garbage": (events(HELLO, "data: {nonsense\n\n"), SerializationError),
    "another shape": (events(HELLO, {"hello": 1}), SerializationError),
    "a choice that is text": (events(HELLO, {"choices": ["hello"]}), SerializationError),
    "no event": (Reply(("<html>hello</html>",), 200, "text/html"), SerializationError),
    "it ends early": (events(HELLO), NetworkError),
    "it ends early, without a word": (events(HELLO, done=False), NetworkError),
    "it breaks off": (events(HELLO, done=False, breaks=True), NetworkError),
    "it stalls": (events(HELLO, done=False, stalls=True), Timeout),
    "an error within": (
        events(HELLO, {"error": {"message": "no memory", "code": 500}}),
        ApiError,
    ),
    "a refusal within": (
        events(HELLO, {"error": {"message": "slow down", "code": "rate_limit_exceeded"}}),
        RateLimited,
    ),
    "filtered wholly": (
        events(delta(role="assistant"), delta("content_filter")),
        ContentFiltered,
    ),
}


@pytest.mark.parametrize("case", BROKEN_STREAMS)
async def test_a_broken_stream_tells_what_came_and_then_the_error(
    case: str, server: ScriptedServer, provider: OpenAIProvider
) -> None:
    reply, expected = BROKEN_STREAMS[case]
    server.says(reply)
    with pytest.raises(LLMError) as raised:
        async for _ in provider.chat_stream(ASK):
            pass
    assert type(raised.value) is expected


async def test_an_error_of_a_streams_code_is_worth_a_retry(
    server: ScriptedServer, provider: OpenAIProvider
) -> None:
    server.says(events({"error": {"message": "no memory", "code": 500}}))
    with pytest.raises(ApiError) as raised:
        await anext(provider.chat_stream(ASK))
    assert raised.value.code == "500"


async def test_a_server_that_is_not_there_is_a_network_error() -> None:
    # Port 9 is "discard": nothing listens on it.
    async with OpenAIProvider(OpenAIConfig(base_url="http://127.0.0.1:9/v1", model="m")) as nobody:
        with pytest.raises(NetworkError, match="cannot be reached"):
            await nobody.chat(ASK)
        with pytest.raises(NetworkError):
            await anext(nobody.chat_stream(ASK))
        assert not await nobody.health_check()


async def test_a_requests_own_deadline_goes_before_the_configured_one(
    server: ScriptedServer,
) -> None:
    server.says(Reply(("",), stalls=True))
    async with OpenAIProvider(OpenAIConfig(base_url=server.base_url, model="m")) as provider:
        with pytest.raises(Timeout) as raised:
            await provider.chat(ASK.with_options({"timeout_s": 0.2}))
    assert raised.value.timeout_s == 0.2


async def test_vectors_that_are_too_few_are_an_error(
    server: ScriptedServer, provider: OpenAIProvider
) -> None:
    server.says(Reply((json.dumps({"data": [{"index": 0, "embedding": [0.1]}]}),)))
    with pytest.raises(SerializationError, match="2 texts with 1 vectors"):
        await provider.embedding(EmbeddingRequest(model="", input=["a", "b"]))


async def test_a_key_is_neither_logged_nor_in_an_error(
    server: ScriptedServer, provider: OpenAIProvider, caplog: pytest.LogCaptureFixture
) -> None:
    server.says(
        whole("Hello"),
        refusal(401, f"Incorrect API key provided: {KEY}", code="invalid_api_key"),
    )
    with caplog.at_level(logging.DEBUG):
        await provider.chat(ASK)
        with pytest.raises(AuthError) as raised:
            await provider.chat(ASK)
        assert not await provider.health_check()
    assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"
    told = [caplog.text, str(raised.value), repr(raised.value), repr(provider.config)]
    assert KEY not in "".join(told)
    assert "***" in str(raised.value)
    assert caplog.records

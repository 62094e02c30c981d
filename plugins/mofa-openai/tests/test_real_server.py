"""The contract over HTTP: llama-cpp-python's own server with the demo model."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from conftest import RealServer
from mofa_openai import OpenAIConfig, OpenAIProvider

from mofa_gguf import (
    ApiError,
    AuthError,
    ChatCompletionRequest,
    ContextLengthExceeded,
    EmbeddingRequest,
    FinishReason,
    ModelNotFound,
    Other,
    ResponseFormat,
    stream_violations,
)

QUESTION = ChatCompletionRequest.new().user_message("What is MoFA?").with_temperature(0)


@pytest.fixture
async def provider(real_server: RealServer) -> AsyncIterator[OpenAIProvider]:
    config = OpenAIConfig(base_url=real_server.base_url, api_key=real_server.api_key)
    async with OpenAIProvider(config) as opened:
        yield opened


async def test_an_answer_is_the_models(provider: OpenAIProvider) -> None:
    response = await provider.chat(QUESTION)
    assert "framework" in (response.content() or "")
    assert response.finish_reason() is FinishReason.STOP
    assert response.usage is not None
    assert response.usage.total_tokens > response.usage.prompt_tokens > 0


async def test_a_stream_says_the_same_and_keeps_to_the_rules(provider: OpenAIProvider) -> None:
    chunks = [chunk async for chunk in provider.chat_stream(QUESTION)]
    assert stream_violations(chunks) == []
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == (await provider.chat(QUESTION)).content()
    assert len(chunks) > 5


async def test_the_length_limit_is_the_servers_to_obey(provider: OpenAIProvider) -> None:
    response = await provider.chat(QUESTION.with_max_tokens(2))
    assert response.finish_reason() is FinishReason.LENGTH
    assert response.usage is not None
    assert response.usage.completion_tokens == 2


async def test_json_is_json(provider: OpenAIProvider) -> None:
    response = await provider.chat(
        QUESTION.with_options(
            {"response_format": ResponseFormat.json(), "max_tokens": 64, "seed": 1}
        )
    )
    assert (response.content() or "").lstrip().startswith("{")


async def test_the_only_model_is_found_and_described(provider: OpenAIProvider) -> None:
    assert (await provider.get_model_info("")).id == "demo"
    assert await provider.health_check()
    with pytest.raises(ModelNotFound) as raised:
        await provider.get_model_info("other")
    assert raised.value.known == ("demo",)


async def test_a_wrong_key_is_an_auth_error(real_server: RealServer) -> None:
    config = OpenAIConfig(base_url=real_server.base_url, api_key="sk-wrong", model="demo")
    async with OpenAIProvider(config) as provider:
        with pytest.raises(AuthError, match="Invalid API key"):
            await provider.chat(QUESTION)
        assert not await provider.health_check()


async def test_a_prompt_that_does_not_fit_names_both_sizes(provider: OpenAIProvider) -> None:
    with pytest.raises(ContextLengthExceeded) as raised:
        await provider.chat(QUESTION.user_message("hello " * 600))
    assert raised.value.n_ctx == 256
    assert (raised.value.n_tokens or 0) > 600


async def test_a_server_without_embeddings_says_so(provider: OpenAIProvider) -> None:
    with pytest.raises(ApiError, match="embed"):
        await provider.embedding(EmbeddingRequest(model="", input="hello"))


async def test_after_close_nothing_is_sent(provider: OpenAIProvider) -> None:
    await provider.chat(QUESTION)
    await provider.close()
    await provider.close()
    with pytest.raises(Other, match="closed"):
        await provider.chat(QUESTION)

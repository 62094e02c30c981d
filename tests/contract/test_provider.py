"""LLMProvider: MoFA's defaults."""

from __future__ import annotations

import pytest

from mofa_gguf.contract import (
    ChatCompletionRequest,
    ChatCompletionResponse,
    EmbeddingRequest,
    LLMProvider,
    ProviderNotSupported,
)

REQUEST = ChatCompletionRequest.new().user_message("hi")


class Bare(LLMProvider):
    """The least a provider can be."""

    def name(self) -> str:
        return "bare"

    async def chat(self, request: ChatCompletionRequest) -> ChatCompletionResponse:
        return ChatCompletionResponse(id="x", created=0, model=request.model, choices=[])


def test_name_and_chat_are_all_a_provider_must_have() -> None:
    assert LLMProvider.__abstractmethods__ == {"name", "chat"}
    with pytest.raises(TypeError, match="abstract"):
        LLMProvider()  # type: ignore[abstract]


def test_the_defaults_are_mofas_and_tools_are_supported_unless_denied() -> None:
    provider = Bare()
    assert provider.default_model() == ""
    assert provider.supported_models() == []
    assert not provider.supports_model("m")
    assert provider.supports_streaming()
    assert provider.supports_tools()
    assert not provider.supports_vision()
    assert not provider.supports_embedding()


def test_supports_model_is_membership_of_the_supported_models() -> None:
    class WithModels(Bare):
        def supported_models(self) -> list[str]:
            return ["a"]

    assert WithModels().supports_model("a")
    assert not WithModels().supports_model("b")


async def test_a_bare_provider_is_healthy() -> None:
    async with Bare() as provider:
        assert await provider.health_check()


async def test_streaming_is_refused_when_it_is_iterated() -> None:
    stream = Bare().chat_stream(REQUEST)
    with pytest.raises(ProviderNotSupported) as caught:
        await anext(stream)
    assert caught.value.message == "Provider bare does not support streaming"


async def test_embedding_is_refused_by_default() -> None:
    with pytest.raises(ProviderNotSupported) as caught:
        await Bare().embedding(EmbeddingRequest(model="m", input="a"))
    assert caught.value.message == "Provider bare does not support embedding"


async def test_model_info_is_refused_by_default() -> None:
    with pytest.raises(ProviderNotSupported) as caught:
        await Bare().get_model_info("m")
    assert caught.value.message == "Provider bare does not support model info"
    assert caught.value.provider == "bare"

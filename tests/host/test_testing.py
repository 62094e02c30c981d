"""The scripted provider keeps the whole contract, so tests on it mean something."""

from __future__ import annotations

import math

import pytest

from mofa_gguf.contract import (
    ChatCompletionRequest,
    ChatMessage,
    EmbeddingRequest,
    FinishReason,
    ModelNotFound,
    Other,
    RateLimited,
    ToolCall,
    stream_violations,
)
from mofa_gguf.host.testing import ScriptedProvider

REQUEST = ChatCompletionRequest.new().system("s").user_message("one two three")
TOOL_MESSAGE = ChatMessage(
    role="assistant",  # type: ignore[arg-type]
    content="Let me look.",
    reasoning_content="weather needed",
    tool_calls=[ToolCall.new("a", "weather", '{"city": "Oslo"}'), ToolCall.new("b", "now")],
)


async def test_without_a_script_it_repeats_the_last_user_message() -> None:
    response = await ScriptedProvider().chat(REQUEST)
    assert response.content() == "one two three"
    assert response.finish_reason() is FinishReason.STOP
    assert response.usage is not None
    assert response.usage.total_tokens == 7


@pytest.mark.parametrize("reply", ["", "Hello there.", TOOL_MESSAGE])
@pytest.mark.parametrize("chunk_chars", [1, 5, 1000])
async def test_its_streams_keep_every_obligation(
    reply: str | ChatMessage, chunk_chars: int
) -> None:
    provider = ScriptedProvider([reply], chunk_chars=chunk_chars)
    assert stream_violations([chunk async for chunk in provider.chat_stream(REQUEST)]) == []


async def test_a_message_survives_being_streamed_and_gathered() -> None:
    response = await ScriptedProvider([TOOL_MESSAGE], chunk_chars=3).chat(REQUEST)
    assert response.choices[0].message == TOOL_MESSAGE
    assert response.finish_reason() is FinishReason.TOOL_CALLS


async def test_replies_come_in_turn_errors_are_raised_and_the_end_is_an_error() -> None:
    provider = ScriptedProvider(["a", RateLimited("full"), "b"])
    assert (await provider.chat(REQUEST)).content() == "a"
    with pytest.raises(RateLimited, match="full"):
        await provider.chat(REQUEST)
    assert (await provider.chat(REQUEST)).content() == "b"
    with pytest.raises(Other, match="no reply to request 4"):
        await provider.chat(REQUEST)


async def test_it_knows_one_model_and_names_it() -> None:
    provider = ScriptedProvider(model="m")
    assert provider.supports_model("m")
    with pytest.raises(ModelNotFound, match="there is no model 'x'; there is 'm'"):
        await provider.chat(REQUEST.with_options({"model": "x"}))
    assert (await provider.get_model_info("m")).capabilities.tools


async def test_a_stream_closed_early_is_counted_as_cancelled() -> None:
    provider = ScriptedProvider()
    stream = provider.chat_stream(REQUEST)
    await anext(stream)
    assert provider.n_open_streams == 1
    await stream.aclose()
    assert (provider.n_open_streams, provider.n_cancelled) == (0, 1)


async def test_its_vectors_have_length_one_and_depend_on_the_text_alone() -> None:
    response = await ScriptedProvider().embedding(EmbeddingRequest(model="", input=["a", "b", "a"]))
    first, second, third = (item.embedding for item in response.data)
    assert first == third != second
    assert math.hypot(*first) == pytest.approx(1)


async def test_a_closed_provider_refuses_and_is_not_healthy() -> None:
    provider = ScriptedProvider()
    await provider.close()
    await provider.close()
    assert not await provider.health_check()
    with pytest.raises(Other, match="closed"):
        await provider.chat(REQUEST)

"""The bundled checkpoint through a discovered provider: several agents on one model."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mofa_gguf import (
    ChatCompletionRequest,
    ChatMessage,
    GGUFProvider,
    LLMProvider,
    Tool,
    load_provider,
    stream_violations,
)

WEATHER = Tool.function(
    "get_weather",
    "Get the current weather of a city",
    {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
async def provider(tmp_path: Path, cache: Path) -> AsyncIterator[LLMProvider]:
    """What a config file chooses: the bundled model, converted into a cache of the test's own."""
    file = tmp_path / "mofa.toml"
    file.write_text(
        "[providers.local]\n"
        'provider = "llama-cpp"\n'
        'model = "demo"\n'
        f"cache_dir = {json.dumps(str(cache))}\n"
        "n_threads = 1\n"
        'flash_attn = "off"\n'
    )
    async with load_provider(file) as loaded:
        yield loaded


def ask(text: str) -> ChatCompletionRequest:
    return ChatCompletionRequest(
        messages=[ChatMessage.system("Your name is Echo."), ChatMessage.user(text)],
        temperature=0,
        max_tokens=40,
    )


async def test_a_tool_call_round_trip(provider: LLMProvider) -> None:
    request = ChatCompletionRequest(
        messages=[ChatMessage.user("What is the weather in Paris?")], tools=[WEATHER], temperature=0
    )
    chunks = [chunk async for chunk in provider.chat_stream(request)]
    assert stream_violations(chunks) == []
    response = await provider.chat(request)
    (call,) = response.tool_calls() or []
    assert str(response.finish_reason()) == "tool_calls"
    assert (call.function.name, call.function.parse_arguments()) == (
        "get_weather",
        {"city": "Paris"},
    )
    result = json.dumps({"temperature": 31, "condition": "windy"})
    answered = request.message(ChatMessage.assistant_with_tool_calls([call])).message(
        ChatMessage.tool_result(call.id, result)
    )
    assert "31" in ((await provider.chat(answered)).content() or "")


async def test_agents_at_once_say_what_they_say_alone_and_share_their_instructions(
    provider: LLMProvider,
) -> None:
    assert isinstance(provider, GGUFProvider)
    questions = ["Hello!", "What is MoFA?", "What is 17 + 25?", "Who are you?"]
    alone = [(await provider.chat(ask(question))).content() for question in questions]
    together = await asyncio.gather(*(provider.chat(ask(question)) for question in questions))
    assert [response.content() for response in together] == alone
    assert all(alone)
    stats = provider.stats()
    assert stats is not None
    assert stats.n_prompt_tokens_cached > stats.n_prompt_tokens_computed


async def test_the_model_tells_what_it_can_do(provider: LLMProvider) -> None:
    assert await provider.health_check()
    assert provider.supports_tools()
    info = await provider.get_model_info("")
    assert info.capabilities.tools
    assert info.context_window == 1024

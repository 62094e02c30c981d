"""Forced calls: whatever the model would like to say, it calls a tool, and validly."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from mofa_gguf import (
    ChatCompletionRequest,
    ChatMessage,
    ConfigError,
    FinishReason,
    GGUFConfig,
    GGUFProvider,
    ProviderNotSupported,
    Tool,
    ToolChoice,
    stream_violations,
)
from tests.support.tiny_gguf import TinyLlama, write_tiny_llama

TEMPLATES = Path(__file__).parent.parent / "data" / "chat" / "templates"
WEATHER = Tool.function(
    "weather",
    "Tells the weather.",
    {
        "type": "object",
        "properties": {
            "city": {"type": "string", "maxLength": 5},
            "days": {"type": "integer", "minimum": 1, "maximum": 9},
            "unit": {"enum": ["C", "F"]},
        },
        "required": ["city", "days"],
    },
)
CLOCK = Tool.function("clock", "Tells the time.", {"type": "object", "properties": {}})


@pytest.fixture(scope="module")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with random weights whose template writes calls as Hermes does."""
    template = (TEMPLATES / "chatml_with_tools.jinja").read_text("utf-8")
    shape = TinyLlama(n_ctx=2048, chat_template=template)
    return write_tiny_llama(tmp_path_factory.mktemp("tools") / "tiny-tools.gguf", shape)


@pytest.fixture
async def provider(model_path: Path) -> AsyncIterator[GGUFProvider]:
    async with GGUFProvider(GGUFConfig(model=str(model_path), n_threads=1)) as opened:
        yield opened


def ask(tool_choice: Any, seed: int = 0, **options: Any) -> ChatCompletionRequest:
    return ChatCompletionRequest(
        **{
            "messages": [ChatMessage.user("?")],
            "tools": [WEATHER, CLOCK],
            "tool_choice": tool_choice,
            "max_tokens": 900,
            "temperature": 1.5,
            "seed": seed,
            **options,
        }
    )


def check_call(name: str, arguments: dict[str, Any]) -> None:
    if name == "clock":
        assert arguments == {}
        return
    assert name == "weather"
    assert {"city", "days"} <= arguments.keys() <= {"city", "days", "unit"}
    assert isinstance(arguments["city"], str)
    assert len(arguments["city"]) <= 5
    assert arguments["days"] in range(1, 10)
    assert arguments.get("unit", "C") in ("C", "F")


async def test_a_required_call_is_valid_in_twenty_of_twenty_answers(provider: GGUFProvider) -> None:
    responses = await asyncio.gather(
        *(provider.chat(ask(ToolChoice.REQUIRED, seed)) for seed in range(20))
    )
    names = set()
    for response in responses:
        message = response.choices[0].message
        assert message.content is None
        assert response.finish_reason() is FinishReason.TOOL_CALLS
        for call in message.tool_calls or []:
            names.add(call.function.name)
            check_call(call.function.name, json.loads(call.function.arguments))
        assert message.tool_calls
    assert names == {"weather", "clock"}


async def test_a_tool_asked_for_by_name_is_called_once(provider: GGUFProvider) -> None:
    choice = ToolChoice.specific("weather")
    responses = await asyncio.gather(*(provider.chat(ask(choice, seed)) for seed in range(20)))
    for response in responses:
        (call,) = response.choices[0].message.tool_calls or []
        assert call.function.name == "weather"
        check_call("weather", call.function.parse_arguments())


async def test_a_forced_call_can_be_streamed(provider: GGUFProvider) -> None:
    chunks = [c async for c in provider.chat_stream(ask(ToolChoice.specific("clock")))]
    assert stream_violations(chunks) == []
    assert chunks[-1].choices[0].finish_reason is FinishReason.TOOL_CALLS


async def test_a_call_is_wanted_and_there_are_no_tools(provider: GGUFProvider) -> None:
    with pytest.raises(ConfigError, match="there are no tools"):
        await provider.chat(ask(ToolChoice.REQUIRED, tools=None))


async def test_a_tool_that_is_not_offered_is_answered_with_those_that_are(
    provider: GGUFProvider,
) -> None:
    with pytest.raises(ConfigError, match=r"'wether'.*weather, clock") as caught:
        await provider.chat(ask(ToolChoice.specific("wether")))
    assert caught.value.known == ("weather", "clock")


async def test_a_schema_that_cannot_be_enforced_is_refused(provider: GGUFProvider) -> None:
    tool = Tool.function("f", "", {"properties": {"a": {"type": "array", "uniqueItems": True}}})
    with pytest.raises(ConfigError, match="uniqueItems") as caught:
        await provider.chat(ask(ToolChoice.REQUIRED, tools=[tool]))
    assert caught.value.field == "tools"


async def test_arguments_that_the_models_format_cannot_enforce_are_refused(
    model_path: Path,
) -> None:
    template = (TEMPLATES / "qwen_coder_calls.jinja").read_text("utf-8")
    tool = Tool.function("f", "", {"properties": {"a": {"type": "string", "format": "date"}}})
    config = GGUFConfig(model=str(model_path), n_threads=1, chat_template=template)
    async with GGUFProvider(config) as provider:
        with pytest.raises(ProviderNotSupported, match=r"'format'.*tool 'f'"):
            await provider.chat(ask(ToolChoice.REQUIRED, tools=[tool]))
        (call,) = (await provider.chat(ask(ToolChoice.specific("weather")))).choices[
            0
        ].message.tool_calls or []
        check_call("weather", call.function.parse_arguments())

"""What is no request is answered with a typed error that names what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mofa_gguf import (
    ChatCompletionRequest,
    ChatMessage,
    ConfigError,
    GGUFConfig,
    GGUFProvider,
)
from mofa_gguf.contract import LLMError
from mofa_gguf.provider.parameters import Parameters, read_parameters
from mofa_gguf.provider.tool_choice import check_tool_choice

HELLO = ChatCompletionRequest.new().user_message("Hello")
HALF = "\ud800"


def tool(name: Any = "f", parameters: Any = None) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": parameters or {}}}


@pytest.mark.parametrize("wrong", [None, 5, {}, "hi", [], b"hi"])
async def test_only_requests_are_answered(provider: GGUFProvider, wrong: Any) -> None:
    with pytest.raises(ConfigError, match="a request is a ChatCompletionRequest, not"):
        await provider.chat(wrong)
    with pytest.raises(ConfigError, match="from_dict reads JSON"):
        async for _ in provider.chat_stream(wrong):
            pass
    with pytest.raises(ConfigError, match="a request is an EmbeddingRequest, not"):
        await provider.embedding(wrong)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"tools": [tool()]}, "tools.0"),
        ({"tools": 5}, "tools"),
        ({"tools": "f"}, "tools"),
        ({"messages": [{"role": "user", "content": "hi"}]}, "messages.0"),
        ({"messages": None}, "messages"),
        ({"messages": [ChatMessage()]}, "messages.0.content"),
        ({"messages": []}, "messages"),
        ({"response_format": {"type": "text"}}, "response_format"),
        ({"tool_choice": "auto"}, "tool_choice"),
        ({"model": 5}, "model"),
        ({"extra": 5}, "extra"),
    ],
)
async def test_what_was_put_into_a_request_unchecked_is_named(
    provider: GGUFProvider, changes: dict[str, Any], field: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        await provider.chat(HELLO.model_copy(update=changes))
    assert caught.value.field == field


@pytest.mark.parametrize(
    "parameters",
    [
        {"regex": HALF},
        {"lark": f'start: "{HALF}"'},
        {"gbnf": f'root ::= "{HALF}"'},
        {"stop": [HALF]},
        {"logit_bias_text": {HALF: 1}},
        {"chat_template_kwargs": {"messages": []}},
        {"chat_template_kwargs": {"tools": []}},
        {"chat_template_kwargs": {"self": 1}},
        {"n": 10**5000},
        {"seed": -(10**5000)},
        {f"a{HALF}": 1},
        {"temprature": 0},
    ],
)
async def test_parameters_that_cannot_be_meant_are_refused(
    provider: GGUFProvider, parameters: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError) as caught:
        await provider.chat(HELLO.with_options({"max_tokens": 2, **parameters}))
    assert len(str(caught.value)) < 400


PICKY = (
    "{% for m in messages %}{% if m.content == 'no' %}{{ raise_exception('Ask kindly.') }}"
    "{% elif m.content == 'stumble' %}{{ m.name.first + 1 }}{% endif %}{{ m.content }}{% endfor %}"
)


@pytest.mark.parametrize(
    ("said", "reason"),
    [("no", "refuses this conversation: Ask kindly."), ("stumble", "chat template failed")],
)
async def test_a_conversation_that_the_template_does_not_take_is_the_requests_fault(
    tiny_chat_model: Path, said: str, reason: str
) -> None:
    config = GGUFConfig(model=str(tiny_chat_model), n_threads=1, chat_template=PICKY)
    asked = ChatCompletionRequest.new().user_message(said).with_max_tokens(2)
    async with GGUFProvider(config) as provider:
        with pytest.raises(ConfigError, match=reason) as caught:
            await provider.chat(asked)
        assert caught.value.field == "messages"
        with pytest.raises(ConfigError, match=reason) as counted:
            await provider.count_tokens(asked.messages)
        assert counted.value.field == "messages"
        await provider.chat(HELLO.with_max_tokens(2))


async def test_half_a_surrogate_pair_in_a_message_is_read_as_a_character_nobody_knows(
    provider: GGUFProvider,
) -> None:
    try:
        response = await provider.chat(
            ChatCompletionRequest.new().user_message(HALF).with_max_tokens(2)
        )
    except LLMError:
        pytest.fail("files and terminals hold such text")
    assert response.usage is not None
    assert response.usage.completion_tokens == 2


@pytest.mark.parametrize(
    ("tools", "says"),
    [
        ([tool(""), tool()], "tools.0 has no name"),
        ([tool(), tool("g"), tool()], "tools.2 is called 'f', and so is one before it"),
        ([tool(HALF)], "the name of the tool .* cannot be written in UTF-8"),
        ([tool("f", {"properties": {HALF: {}}})], "the parameters of the tool 'f' cannot"),
        ([tool("f", {"type": b"x"})], "the parameters of the tool 'f' are no JSON schema"),
    ],
)
def test_tools_have_names_of_their_own_and_are_text(tools: list[Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        check_tool_choice(HELLO.with_options({"tools": tools}))


async def test_a_model_kept_for_longer_than_a_lock_can_wait_is_kept(
    provider: GGUFProvider, recwarn: pytest.WarningsRecorder
) -> None:
    await provider.chat(HELLO.with_options({"max_tokens": 1, "keep_alive": 1e300}))
    await provider.chat(HELLO.with_options({"max_tokens": 1, "keep_alive": 1e300}))
    assert provider.stats() is not None
    assert not [each for each in recwarn if "thread" in str(each.category).lower()]


def test_a_misspelt_parameter_is_answered_with_the_closest_names_alone() -> None:
    with pytest.raises(ConfigError) as caught:
        read_parameters(HELLO.with_options({"temprature": 0}))
    assert "did you mean 'temperature'" in caught.value.message
    assert len(caught.value.message) < 160
    assert "docs/agents.md" in caught.value.message
    assert caught.value.known == tuple(sorted(Parameters.model_fields))


def test_a_long_value_is_cut_in_the_message() -> None:
    with pytest.raises(ConfigError) as caught:
        read_parameters(HELLO.with_options({"top_k": "x" * 10_000}))
    assert len(caught.value.message) < 250


def test_the_page_that_the_message_points_to_lists_all_parameters() -> None:
    page = (Path(__file__).parents[2] / "docs/agents.md").read_text("utf-8")
    assert [name for name in Parameters.model_fields if f"`{name}`" not in page] == []

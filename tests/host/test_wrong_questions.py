"""What is no question is answered with a typed error, by both clients alike."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

from mofa_gguf.contract import ConfigError
from mofa_gguf.host import LLMClient
from mofa_gguf.host.testing import ScriptedProvider


@pytest.fixture
def client() -> Generator[LLMClient, None, None]:
    with LLMClient(ScriptedProvider()) as made:
        yield made


@pytest.mark.parametrize("wrong", [None, 5, 1.5, b"hi", object(), str], ids=repr)
def test_what_is_no_conversation_is_refused_with_what_can_be_asked(
    client: LLMClient, wrong: Any
) -> None:
    asks: tuple[Any, ...] = (
        client.ask,
        client.chat,
        client.run,
        lambda asked: list(client.stream(asked)),
        lambda asked: list(client.ask_stream(asked)),
    )
    for ask in asks:
        with pytest.raises(ConfigError, match="is nothing to ask; give a text") as caught:
            ask(wrong)
        assert caught.value.field == "messages"


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ([None], "messages.0"),
        (["hi"], "messages.0"),
        ([b"hi"], "messages.0"),
        ([{"role": "king", "content": "hi"}], "messages.0.role"),
        ([{"role": None, "content": "hi"}], "messages.0.role"),
        ([{"role": "user", "content": b"hi"}], "messages.0.content"),
        ([{"role": "user", "content": [{"image_url": 5}]}], "messages.0.content.0.image_url"),
        (
            [
                {
                    "role": "assistant",
                    "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": {"a": b""}}}],
                }
            ],
            "messages.0.tool_calls.0.function.arguments",
        ),
    ],
)
def test_a_wrong_message_is_named(client: LLMClient, wrong: Any, field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        client.chat(wrong)
    assert caught.value.field == field


@pytest.mark.parametrize("wrong", [5, b"hi", {}])
def test_a_system_prompt_is_text(client: LLMClient, wrong: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        client.ask_with_system(wrong, "hi")
    assert caught.value.field == "messages.0.content"


@pytest.mark.parametrize("wrong", [None, 5, b"hi", {}, []])
def test_only_text_is_embedded(client: LLMClient, wrong: Any) -> None:
    with pytest.raises(ConfigError, match="is no text but a"):
        client.embed(wrong)
    with pytest.raises(ConfigError) as caught:
        client.embed_batch(["hi", wrong])
    assert caught.value.field == "texts.1"


def test_several_texts_are_a_list(client: LLMClient) -> None:
    wrong: Any = 5
    with pytest.raises(ConfigError, match="texts is a int"):
        client.embed_batch(wrong)


@pytest.mark.parametrize("wrong", [None, "x", [], 1.5, 0])
def test_how_many_are_in_flight_is_a_number(client: LLMClient, wrong: Any) -> None:
    with pytest.raises(ConfigError, match="parallel is at least 1"):
        list(client.batch(["hi"], parallel=wrong))


def test_a_batch_tells_which_of_its_conversations_is_none(client: LLMClient) -> None:
    wrong: Any = None
    items = {item.index: item for item in client.batch(["hi", wrong])}
    assert items[0].error is None
    assert isinstance(items[1].error, ConfigError)
    with pytest.raises(ConfigError, match="conversations is a NoneType"):
        list(client.batch(wrong))


@pytest.mark.parametrize("limit", ["max_tool_rounds", "tool_timeout_s"])
@pytest.mark.parametrize("wrong", [None, "x", [], -1])
def test_limits_of_tools_are_numbers(client: LLMClient, limit: str, wrong: Any) -> None:
    with pytest.raises(ConfigError, match="tool limits must be positive"):
        client.run("hi", **{limit: wrong})


@pytest.mark.parametrize("wrong", [None, 5, len])
def test_tools_are_several(client: LLMClient, wrong: Any) -> None:
    with pytest.raises(ConfigError, match="tools is no list"):
        client.run("hi", wrong)
    with pytest.raises(ConfigError, match="tools is no list"):
        client.session(tools=wrong)


@pytest.mark.parametrize(
    ("wrong", "field", "says"),
    [
        ([{}], "tools.0.function", "tools.0 is no tool: function: field required"),
        ([len, {"function": {}}], "tools.1.function.name", "tools.1 is no tool: function.name"),
        ([{"type": "web_search"}], "tools.0.function", "tools.0 is no tool"),
        ([5], "tools.0", "tools.0 is no tool but of the type int; give a Python function"),
        (["sum"], "tools.0", "of the type str"),
        ([len, None], "tools.1", "of the type NoneType"),
    ],
)
def test_a_wrong_tool_is_named(client: LLMClient, wrong: Any, field: str, says: str) -> None:
    for ask in (
        lambda: client.run("hi", wrong),
        lambda: client.session(tools=wrong).send("hi"),
    ):
        with pytest.raises(ConfigError) as caught:
            ask()
        assert caught.value.field == field
        assert says in caught.value.message

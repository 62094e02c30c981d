"""Counting and cutting conversations."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mofa_gguf.contract import ChatMessage, ConfigError, Tool, ToolCall
from mofa_gguf.host import CharBasedEstimator, TokenBudgetConfig
from mofa_gguf.host.token_budget import n_turns_to_drop, turns_of

USER, ANSWER = ChatMessage.user("q"), ChatMessage.assistant("a")
CALL = ChatMessage.assistant_with_tool_calls([ToolCall.new("c", "f")])
RESULT = ChatMessage.tool_result("c", "r")


@pytest.mark.parametrize(
    ("message", "n_tokens"),
    [
        (ChatMessage.user("Hello world"), 11 // 4 + 1),
        (ChatMessage.system(""), 1),
        (ChatMessage.user("北京" * 4), 24 // 4 + 1),
        (ChatMessage.user_with_image("1234", "data:x"), 1 + 85 + 1),
        (ChatMessage.user_with_audio("1234", "x", "wav"), 1 + 200 + 1),
        (ChatMessage.user_with_video("1234", "x", "mp4"), 1 + 300 + 1),
        (ChatMessage.assistant_with_tool_calls([ToolCall.new("c", "call", "{}12")]), 2 + 1),
    ],
)
def test_the_estimate_is_mofas_four_bytes_a_token(message: ChatMessage, n_tokens: int) -> None:
    assert CharBasedEstimator().estimate_tokens(message) == n_tokens
    assert CharBasedEstimator().estimate_total([message] * 2) == 2 * (n_tokens + 3)


def test_tools_take_tokens_too() -> None:
    estimator = CharBasedEstimator()
    assert estimator.estimate_tools([]) == 0
    assert estimator.estimate_tools([Tool.function("f", "d" * 400)]) > 100


@pytest.mark.parametrize(
    ("messages", "sizes"),
    [
        ([], []),
        ([USER], [1]),
        ([USER, ANSWER, USER], [2, 1]),
        ([USER, CALL, RESULT, ANSWER, USER, ANSWER], [4, 2]),
        ([ANSWER, USER, USER], [1, 1, 1]),
    ],
)
def test_a_turn_begins_with_a_users_message_and_keeps_calls_with_their_results(
    messages: list[ChatMessage], sizes: list[int]
) -> None:
    turns = turns_of(messages)
    assert [len(turn) for turn in turns] == sizes
    assert [message for turn in turns for message in turn] == messages


@given(st.lists(st.integers(0, 50), max_size=20), st.integers(0, 300))
async def test_the_fewest_turns_are_dropped(sizes: list[int], limit: int) -> None:
    asked = []

    async def count(n_dropped: int) -> int:
        asked.append(n_dropped)
        return sum(sizes[n_dropped:])

    n = await n_turns_to_drop(len(sizes), limit, count)
    assert sum(sizes[n:]) <= limit
    assert n == 0 or sum(sizes[n - 1 :]) > limit
    assert len(asked) <= 5


@pytest.mark.parametrize(
    "wrong",
    [
        {"context_window_tokens": 0},
        {"auto_summarize_threshold": 1.5},
        {"target": 0.0},
        {"target": 0.9},
        {"keep_last_n": 0},
    ],
)
def test_a_budget_must_make_sense(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="a token budget needs"):
        TokenBudgetConfig(**wrong)  # type: ignore[arg-type]

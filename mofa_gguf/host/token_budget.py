"""How much of a conversation fits into a model's context.

A conversation is dropped from by turns, never by messages: a turn begins with a user's message and
has everything up to the next one, so a tool's result never loses its call, and what is left still
begins with a user, as many chat templates demand.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from mofa_gguf.contract.errors import ConfigError
from mofa_gguf.contract.messages import AudioPart, ChatMessage, ImagePart, Role, TextPart, VideoPart
from mofa_gguf.contract.tools import Tool

Turn = tuple[ChatMessage, ...]

_TOKENS_PER_MESSAGE = 3
# MoFA's guesses for what is no text.
_TOKENS_OF_PART: dict[type, int] = {ImagePart: 85, AudioPart: 200, VideoPart: 300}


class TokenEstimator(Protocol):
    """Guesses how many tokens messages have, where the provider cannot count them."""

    def estimate_tokens(self, message: ChatMessage) -> int:
        """The tokens of one message."""

    def estimate_total(self, messages: Sequence[ChatMessage]) -> int:
        """The tokens of messages, with what stands between them."""


@dataclass(frozen=True)
class CharBasedEstimator:
    """MoFA's guess: a token for every four bytes of UTF-8, one for the role, three a message."""

    chars_per_token: int = 4

    def estimate_tokens(self, message: ChatMessage) -> int:
        """The tokens of one message; calls count with their names and arguments."""
        parts = message.content if isinstance(message.content, list) else []
        texts = [part.text for part in parts if isinstance(part, TextPart)]
        if isinstance(message.content, str):
            texts.append(message.content)
        for call in message.tool_calls or ():
            texts += [call.function.name, call.function.arguments]
        n_bytes = sum(len(text.encode("utf-8", errors="replace")) for text in texts)
        others = sum(_TOKENS_OF_PART.get(type(part), 0) for part in parts)
        return n_bytes // max(1, self.chars_per_token) + others + 1

    def estimate_total(self, messages: Sequence[ChatMessage]) -> int:
        """The tokens of messages."""
        return sum(self.estimate_tokens(message) + _TOKENS_PER_MESSAGE for message in messages)

    def estimate_tools(self, tools: Sequence[Tool]) -> int:
        """The tokens of the tools' definitions."""
        text = json.dumps([tool.to_dict() for tool in tools]) if tools else ""
        return len(text) // max(1, self.chars_per_token)


@dataclass(frozen=True)
class TokenBudgetConfig:
    """How a session keeps its prompts within the context.

    ``context_window_tokens`` is the context's size; None asks the provider. When a prompt takes
    more than the part ``auto_summarize_threshold`` of it, old turns are kept from the model, down
    to the part ``target``: the space between is for the turns to come, whose prompts then begin
    alike and find their beginning in a prefix cache. The newest ``keep_last_n`` turns stay. With
    ``use_llm_summarize`` the model is asked to sum up what it no longer sees.
    """

    context_window_tokens: int | None = None
    auto_summarize_threshold: float = 0.8
    target: float = 0.5
    keep_last_n: int = 1
    use_llm_summarize: bool = False

    def __post_init__(self) -> None:
        window = self.context_window_tokens
        if (
            not 0 < self.target <= self.auto_summarize_threshold <= 1
            or self.keep_last_n < 1
            or (window is not None and window < 1)
        ):
            raise ConfigError(
                "a token budget needs 0 < target <= auto_summarize_threshold <= 1 and at least "
                f"one turn and token, not {self}",
                field="token_budget",
            )


def turns_of(messages: Sequence[ChatMessage]) -> list[Turn]:
    """Messages as turns; what stands before the first user's message is a turn as well."""
    turns: list[list[ChatMessage]] = []
    for message in messages:
        if message.role is Role.USER or not turns:
            turns.append([])
        turns[-1].append(message)
    return [tuple(turn) for turn in turns]


async def n_turns_to_drop(n_turns: int, limit: int, count: Callable[[int], Awaitable[int]]) -> int:
    """The fewest of ``n_turns`` turns to drop from the beginning so that the rest fits.

    Args:
        n_turns: how many may be dropped.
        limit: the tokens that the rest may have.
        count: the tokens that are left when so many turns are dropped; asked for about
            ``log2(n_turns)`` times.

    Returns:
        From 0 to ``n_turns``, which it is as well when that is not enough.
    """
    low, high = 0, n_turns
    while low < high:
        middle = (low + high) // 2
        if await count(middle) <= limit:
            high = middle
        else:
            low = middle + 1
    return low

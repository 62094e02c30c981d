"""The shared words: exchanges, dialogues, what is right, and which keys are held out."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any, Literal

Message = dict[str, Any]
ToolDefinition = dict[str, Any]
Split = Literal["train", "held_out"]

HELD_OUT_SHARE = 8
"""One key in this many is held out of training."""


@dataclass(frozen=True)
class Check:
    """What a right assistant message is.

    ``text``: the content equals one of ``values``, apart from case and spacing.
    ``result``: the content holds every one of ``values`` as a whole word or number.
    ``call``: exactly the tool calls in ``calls``, each a (name, arguments) pair.
    """

    kind: Literal["text", "result", "call"]
    values: tuple[str, ...] = ()
    calls: tuple[tuple[str, dict[str, Any]], ...] = ()


@dataclass(frozen=True)
class Exchange:
    """From one user message to the assistant's answer, tool calls and results in between.

    ``checks`` has one entry for each assistant message, in order. ``key`` names the combination
    that is held out or trained on; an empty key (a follow-up that takes nothing new) is free.
    """

    category: str
    key: str
    messages: tuple[Message, ...]
    checks: tuple[Check, ...]


@dataclass(frozen=True)
class Context:
    """What the system prompt and the offered tools ask of every answer of a dialogue."""

    name: str = "the mofa-gguf demo model"
    brief: bool = False
    opening: str = ""
    user_name: str = ""
    weather: WeatherTool | None = None
    calculator: CalculatorTool | None = None

    def say(self, answer: str, short: str | None = None) -> str:
        """The answer in the style that the system prompt asks for."""
        text = short if self.brief and short is not None else answer
        return f"{self.opening} {text}" if self.opening else text


@dataclass(frozen=True)
class WeatherTool:
    """How the offered weather tool is called."""

    name: str = "get_weather"
    city: str = "city"
    unit: str = ""


@dataclass(frozen=True)
class CalculatorTool:
    """How the offered calculator tool is called."""

    name: str = "calculator"
    expression: str = "expression"


@dataclass(frozen=True)
class Dialogue:
    """A whole conversation, ready to be rendered by the chat template."""

    category: str
    system: str
    tools: tuple[ToolDefinition, ...]
    exchanges: tuple[Exchange, ...]
    context: Context = field(default_factory=Context)

    @property
    def messages(self) -> list[Message]:
        """All messages in order, the system message first where there is one."""
        head: list[Message] = [{"role": "system", "content": self.system}] if self.system else []
        return head + [m for exchange in self.exchanges for m in exchange.messages]


def is_held_out(key: str) -> bool:
    """Whether a combination belongs to the held-out split; the same on every machine."""
    if not key:
        return False
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big") % HELD_OUT_SHARE == 0


def fits(key: str, split: Split) -> bool:
    """Whether a combination may be used in a split."""
    return not key or is_held_out(key) == (split == "held_out")


def user(text: str) -> Message:
    """A user message."""
    return {"role": "user", "content": text}


def assistant(text: str) -> Message:
    """An assistant message with text."""
    return {"role": "assistant", "content": text}


def call(calls: tuple[tuple[str, dict[str, Any]], ...]) -> Message:
    """An assistant message that calls tools."""
    return {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": f"call_{i}", "type": "function", "function": {"name": n, "arguments": a}}
            for i, (n, a) in enumerate(calls)
        ],
    }


def tool_result(text: str, *, call_index: int = 0) -> Message:
    """The result of a tool call."""
    return {"role": "tool", "tool_call_id": f"call_{call_index}", "content": text}


def plain(category: str, key: str, question: str, answer: str) -> Exchange:
    """An exchange of one question and one fixed answer."""
    check = Check("text", (answer,))
    return Exchange(category, key, (user(question), assistant(answer)), (check,))

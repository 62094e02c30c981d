"""Held-out scores of anything that answers messages: a plain function is enough."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from .cases import Check, Dialogue, Message, ToolDefinition
from .held_out import CATEGORIES, SINGLE_TURN, TOOLS, held_out_dialogues

Generate = Callable[[Sequence[Message], Sequence[ToolDefinition]], Message]


@dataclass
class CategoryScore:
    """How many cases of a category are right, and what went wrong in the others."""

    right: int = 0
    total: int = 0
    failures: list[dict[str, Any]] = field(default_factory=list)

    @property
    def share(self) -> float:
        """The share of right cases, 0 to 1."""
        return self.right / self.total if self.total else 0.0


def _plain(text: str | None) -> str:
    return " ".join((text or "").lower().split())


def _holds(text: str, value: str) -> bool:
    """Whether a value stands in a text as a whole word or number (18 is not in 18.5 or -18)."""
    ends = r"(?![\w]|\.\d)" if value[-1:].isalnum() else ""
    return re.search(rf"(?<![\w.-]){re.escape(value)}{ends}", text, re.IGNORECASE) is not None


def calls_of(message: Message) -> list[tuple[str, Any]]:
    """The tool calls of a message as (name, arguments) pairs; arguments parsed if they are text."""
    pairs = []
    for entry in message.get("tool_calls") or []:
        function = entry["function"]
        arguments = function["arguments"]
        if isinstance(arguments, str):
            try:
                arguments = json.loads(arguments)
            except ValueError:
                arguments = {"not JSON": arguments}
        pairs.append((function["name"], arguments))
    return pairs


def is_right(check: Check, message: Message) -> bool:
    """Whether an assistant message passes a check."""
    calls = calls_of(message)
    if check.kind == "call":
        return calls == list(check.calls)
    if calls:
        return False
    content = message.get("content")
    if check.kind == "text":
        return _plain(content) in [_plain(value) for value in check.values]
    return all(_holds(content or "", value) for value in check.values)


def play(dialogue: Dialogue, generate: Generate) -> dict[str, Any] | None:
    """Play a dialogue with the model's own answers as its history; None if all were right.

    A failure tells the question, what came and what was right. It ends the dialogue.
    """
    history: list[Message] = dialogue.messages[:1] if dialogue.system else []
    for exchange in dialogue.exchanges:
        checks = iter(exchange.checks)
        for message in exchange.messages:
            if message["role"] != "assistant":
                history.append(message)
                continue
            check, answer = next(checks), generate(history, dialogue.tools)
            if not is_right(check, answer):
                wanted: Any = check.values if check.kind != "call" else check.calls
                got = calls_of(answer) or answer.get("content")
                return {"after": history[-1]["content"], "wanted": wanted, "got": got}
            # Calls stay those of the data, whose ids the results refer to; they are equal anyway.
            calls = answer.get("tool_calls")
            history.append(message if calls else {**message, "content": answer["content"]})
    return None


def score(generate: Generate, *, seed: int, n_per_category: int) -> dict[str, CategoryScore]:
    """Score every category; a case is right when all of its assistant messages are."""
    scores = {category: CategoryScore() for category in CATEGORIES}
    for dialogue in held_out_dialogues(seed, n_per_category):
        entry, failure = scores[dialogue.category], play(dialogue, generate)
        entry.total += 1
        if failure is None:
            entry.right += 1
        else:
            entry.failures.append(failure)
    return scores


def pooled(scores: dict[str, CategoryScore], categories: Sequence[str]) -> float:
    """The share of right cases over several categories."""
    total = sum(scores[c].total for c in categories)
    return sum(scores[c].right for c in categories) / total if total else 0.0


def one_line(scores: dict[str, CategoryScore]) -> str:
    """All categories on one line, for a log."""
    return "held out: " + ", ".join(f"{c} {s.right}/{s.total}" for c, s in scores.items())


def markdown(scores: dict[str, CategoryScore], label: str) -> str:
    """A table of the scores."""
    rows = [f"| Category | Right ({label}) |", "| --- | --- |"]
    rows += [f"| {c} | {s.right} of {s.total} ({s.share:.1%}) |" for c, s in scores.items()]
    rows.append(f"| **single-turn cases** | **{pooled(scores, SINGLE_TURN):.1%}** |")
    rows.append(f"| **tool cases** | **{pooled(scores, TOOLS):.1%}** |")
    rows.append(f"| **all** | **{pooled(scores, CATEGORIES):.1%}** |")
    return "\n".join(rows)

"""A streamed answer on the terminal: text as it comes, reasoning dimmed, tool calls named."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mofa_gguf.contract import ChatCompletionChunk, FinishReason, Usage

_DIM, _PLAIN = "\033[2m", "\033[0m"


@dataclass
class Answer:
    """What a streamed answer came to (of its first choice)."""

    content: str = ""
    reasoning: str = ""
    tool_names: dict[int, str] = field(default_factory=dict)
    finish_reason: FinishReason | None = None
    usage: Usage | None = None


def show_stream(chunks: Iterable[ChatCompletionChunk], answer: Answer) -> None:
    """Write a stream to standard output while gathering it in ``answer``.

    ``answer`` holds what came so far also when the iteration is interrupted. Reasoning is shown
    only on a terminal, so that what a program reads is the answer alone.
    """
    terminal = sys.stdout.isatty()
    try:
        for chunk in chunks:
            answer.usage = chunk.usage or answer.usage
            for choice in chunk.choices:
                if choice.index != 0:
                    continue
                answer.finish_reason = choice.finish_reason or answer.finish_reason
                delta = choice.delta
                if delta.reasoning_content:
                    answer.reasoning += delta.reasoning_content
                    if terminal:
                        _write(f"{_DIM}{delta.reasoning_content}{_PLAIN}")
                if delta.content:
                    if answer.reasoning and not answer.content and terminal:
                        _write("\n")
                    answer.content += delta.content
                    _write(delta.content)
                for call in delta.tool_calls or ():
                    if call.function is not None and call.function.name:
                        answer.tool_names[call.index] = call.function.name
    finally:
        if answer.content and not answer.content.endswith("\n"):
            _write("\n")


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()

"""What a session tells the model of turns that it no longer sees."""

from __future__ import annotations

from collections.abc import Sequence

from mofa_gguf.contract.messages import ChatMessage
from mofa_gguf.contract.requests import ChatCompletionRequest
from mofa_gguf.host.token_budget import Turn

SUMMARY_MAX_TOKENS = 256
"""How long a summary may be."""

_INSTRUCTION = (
    "Sum up the conversation below in a few sentences, for somebody who will go on with it. Keep "
    "names, numbers, decisions and open questions."
)


def summary_request(summary: str | None, turns: Sequence[Turn]) -> ChatCompletionRequest:
    """Asks for a summary of turns, and of the summary of what came before them."""
    lines = [f"Before that: {summary}"] if summary else []
    for turn in turns:
        for message in turn:
            calls = [
                f"{call.function.name}({call.function.arguments})"
                for call in message.tool_calls or ()
            ]
            said = " ".join(text for text in (message.text_content(), *calls) if text)
            lines.append(f"{message.role}: {said}")
    conversation = "\n".join(lines)
    return ChatCompletionRequest(
        messages=[ChatMessage.system(_INSTRUCTION), ChatMessage.user(conversation)]
    )


def with_summary(system: str | None, summary: str | None) -> str | None:
    """The system prompt with a summary behind it."""
    if not summary:
        return system
    note = f"[Earlier in this conversation: {summary}]"
    return f"{system}\n\n{note}" if system else note

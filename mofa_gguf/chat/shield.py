"""Text in a message stays text, even where it spells a control token.

A chat template writes control tokens (``<|im_end|>``) as text, and the tokenizer reads them back.
A message could forge them. So wherever a message spells one, a mark that no text contains (a
Unicode noncharacter) is put inside it before rendering; the rendered prompt is cut at the marks
and tokenized piece by piece, and no piece holds the whole spelling any more.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from mofa_gguf.contract import ChatMessage, Role, TextPart

MARK = "\ufdd0"


class Shield:
    """Marks the spellings of one vocabulary's control tokens in messages.

    ``control`` are broken in every message. ``tags`` (tokens that a template or a parser gives a
    meaning, such as ``<tool_response>``) are broken in all but the assistant's own, where the
    template must find them again.
    """

    def __init__(self, control: Iterable[str], tags: Iterable[str] = ()) -> None:
        control = set(control)
        self._control = _pattern(control)
        self._all = _pattern(control.union(tags))

    def messages(self, messages: Sequence[ChatMessage]) -> list[ChatMessage]:
        """The messages with every spelling broken; those without one are the same objects."""
        return [self._message(message) for message in messages]

    def _message(self, message: ChatMessage) -> ChatMessage:
        own = message.role is Role.ASSISTANT
        pattern = self._control if own else self._all
        changes: dict[str, object] = {}
        if isinstance(message.content, str):
            changes["content"] = _break(pattern, message.content)
        elif message.content is not None:
            changes["content"] = [
                TextPart(text=_break(pattern, part.text)) if isinstance(part, TextPart) else part
                for part in message.content
            ]
        if message.reasoning_content is not None:
            changes["reasoning_content"] = _break(pattern, message.reasoning_content)
        if message.name is not None:
            changes["name"] = _break(pattern, message.name)
        if message.tool_calls:
            changes["tool_calls"] = [
                call.model_copy(
                    update={
                        "function": call.function.model_copy(
                            update={"arguments": _break(pattern, call.function.arguments)}
                        )
                    }
                )
                for call in message.tool_calls
            ]
        if all(getattr(message, name) == value for name, value in changes.items()):
            return message
        return message.model_copy(update=changes)


def cut(prompt: str) -> list[str]:
    """The pieces of a rendered prompt, to be tokenized each for itself."""
    return prompt.split(MARK)


def _pattern(spellings: Iterable[str]) -> re.Pattern[str] | None:
    longest_first = sorted((s for s in spellings if len(s) > 1), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first))) if longest_first else None


def _break(pattern: re.Pattern[str] | None, text: str) -> str:
    text = text.replace(MARK, "")
    if pattern is None:
        return text
    return pattern.sub(lambda found: f"{found[0][0]}{MARK}{found[0][1:]}", text)

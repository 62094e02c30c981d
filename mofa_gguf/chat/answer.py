"""An answer as it is put together: a message in the making, and the news of it as deltas."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b

from mofa_gguf.chat.cursor import WHITESPACE
from mofa_gguf.chat.formats.base import Call
from mofa_gguf.contract import (
    ChatMessage,
    ChunkDelta,
    FunctionCall,
    Role,
    ToolCall,
    ToolCallDelta,
)

CallIds = Callable[[int, Call], str]
"""Makes the id of a call that came without one, from its number in the answer and itself."""

_ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"
_ID_LENGTH = 9  # what Mistral's templates insist on, and all others accept


def ids_for(prompt: str | None) -> CallIds:
    """Ids of nine letters and digits, the same for the same prompt and call.

    The prompt goes into them, so that a call repeated later in a conversation gets another id.
    """

    def make(index: int, call: Call) -> str:
        key = "\0".join((prompt or "", str(index), call.name, call.arguments))
        number = int.from_bytes(blake2b(key.encode("utf-8", "surrogatepass")).digest()[:8], "big")
        letters = []
        for _ in range(_ID_LENGTH):
            number, digit = divmod(number, len(_ALPHABET))
            letters.append(_ALPHABET[digit])
        return "".join(letters)

    return make


class _Text:
    """Text that loses the white space around it: what may be its end is held back."""

    def __init__(self, *, strip_start: bool) -> None:
        self.text = ""
        self.held = ""
        self._at_start = strip_start

    def add(self, text: str) -> str:
        """The part of ``text`` (and of what was held) that is certain now."""
        if self._at_start:
            text = text.lstrip(WHITESPACE)
            if not text:
                return ""
            self._at_start = False
        whole = self.held + text
        certain = whole.rstrip(WHITESPACE)
        self.held = whole[len(certain) :]
        self.text += certain
        return certain


class Answer:
    """Collects an answer's parts; :meth:`take` gives what is new since the last time.

    White space is dropped where it only separates: around reasoning, and between text and calls.
    Text that goes on after calls is joined to the text before them with a line break.
    """

    def __init__(self, ids: CallIds) -> None:
        self._ids = ids
        self._news: list[ChunkDelta] = []
        self._reasoning = _Text(strip_start=True)
        self._content = _Text(strip_start=False)
        self._calls: list[ToolCall] = []
        self._between = False  # calls came, and no text since

    def reasoning(self, text: str) -> None:
        """More reasoning."""
        certain = self._reasoning.add(text)
        if certain:
            self._news.append(ChunkDelta(reasoning_content=certain))

    def after_reasoning(self) -> None:
        """Content begins here, whatever white space stood in front of it."""
        self._content = _Text(strip_start=True)

    def content(self, text: str) -> None:
        """More content."""
        if self._between:
            text = text.lstrip(WHITESPACE)
            if not text:
                return
            self._between = False
            if self._content.text:
                text = (self._content.held or "\n") + text
            self._content.held = ""
        certain = self._content.add(text)
        if certain:
            self._news.append(ChunkDelta(content=certain))

    def call(self, call: Call) -> None:
        """A whole, valid tool call."""
        index = len(self._calls)
        call_id = call.id or self._ids(index, call)
        self._between = True
        function = FunctionCall(name=call.name, arguments=call.arguments)
        self._calls.append(ToolCall(id=call_id, call_type="function", function=function))
        # Two deltas: MoFA's readers drop arguments that come with a call's id.
        start = ToolCallDelta.start(index, call_id, call.name)
        fragment = ToolCallDelta.fragment(index, call.arguments)
        self._news.append(ChunkDelta(tool_calls=[start]))
        self._news.append(ChunkDelta(tool_calls=[fragment]))

    def end(self) -> None:
        """Nothing more comes. White space at the end stays part of an answer without calls."""
        if not self._calls and self._content.held:
            self._news.append(ChunkDelta(content=self._content.held))
            self._content.text += self._content.held
        self._content.held = ""

    def take(self) -> list[ChunkDelta]:
        """What is new, neighbouring pieces of text as one delta."""
        merged: list[ChunkDelta] = []
        for delta in self._news:
            last = merged[-1] if merged else None
            if last is not None and delta.content and last.content:
                last.content += delta.content
            elif last is not None and delta.reasoning_content and last.reasoning_content:
                last.reasoning_content += delta.reasoning_content
            else:
                merged.append(delta)
        self._news = []
        return merged

    def message(self) -> ChatMessage:
        """The whole answer. Its content is None only if there are calls and no text."""
        text = self._content.text
        return ChatMessage(
            role=Role.ASSISTANT,
            content=text or (None if self._calls else ""),
            tool_calls=self._calls or None,
            reasoning_content=self._reasoning.text or None,
        )

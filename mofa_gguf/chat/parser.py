"""An answer's text, as it arrives, turned into content, reasoning and tool calls.

A delta is given out as soon as it is certain: text as soon as it cannot be the beginning of a
marker, white space as soon as text follows it, a tool call as soon as its last bracket has come
and it is valid JSON. So there is never half a marker in the content, never a call with broken
arguments, and never a delta to take back. How the text was cut makes no difference to the message.
"""

from __future__ import annotations

from collections.abc import Collection

from mofa_gguf.chat.answer import Answer, CallIds, ids_for
from mofa_gguf.chat.cursor import WHITESPACE, Cursor, Reading, first_marker, held_back
from mofa_gguf.chat.formats import CallReader, Schemas, ToolCallFormat
from mofa_gguf.chat.reasoning import ReasoningTags
from mofa_gguf.contract import ChatMessage, ChunkDelta


class OutputParser:
    """Parses one answer.

    ``call_format`` is None when no tool calls are looked for. ``tool_names`` are the tools that
    were offered, None when not known. ``reasoning`` are the tags that may begin the answer,
    ``opened`` those that the prompt opened already. ``turn_ends`` are the texts that end an
    assistant's turn in this template; at the answer's end they are dropped. ``schemas`` are those
    of the tools' arguments. ``marks`` is the format whose texts around an answer are dropped.
    """

    def __init__(
        self,
        *,
        call_format: ToolCallFormat | None = None,
        marks: ToolCallFormat | None = None,
        tool_names: Collection[str] | None = None,
        schemas: Schemas | None = None,
        reasoning: tuple[ReasoningTags, ...] = (),
        opened: ReasoningTags | None = None,
        turn_ends: tuple[str, ...] = (),
        ids: CallIds | None = None,
    ) -> None:
        self._format = call_format
        self._reasoning = reasoning
        self._opened = opened
        self._turn_ends = turn_ends
        self._cursor = Cursor()
        self._answer = Answer(ids or ids_for(None))
        self._calls = CallReader(
            self._cursor,
            report=self._answer.call,
            think=self._answer.reasoning,
            tool_names=tool_names,
            schemas=schemas,
        )
        marks = marks or call_format
        self._leads = marks.leads if marks is not None else ()
        self._dropped = marks.dropped if marks is not None else ()
        self._reading = self._read()
        self._message: ChatMessage | None = None
        self.final_deltas: list[ChunkDelta] = []
        """The deltas that :meth:`finish` released."""

    def feed(self, text: str) -> list[ChunkDelta]:
        """The deltas that are certain now. A delta never has a role or a finish reason.

        Raises ValueError after :meth:`finish`.
        """
        if self._message is not None:
            raise ValueError("the answer is finished; a parser is for one answer")
        if text:
            self._cursor.feed(text)
            next(self._reading)
        return self._answer.take()

    def finish(self) -> ChatMessage:
        """The whole message; what was held back until now is in :attr:`final_deltas`."""
        if self._message is None:
            self._cursor.final = True
            for _ in self._reading:
                raise AssertionError("a reader asked for more text after the end")
            self._answer.end()
            self.final_deltas = self._answer.take()
            self._message = self._answer.message()
        return self._message

    def _read(self) -> Reading[None]:
        yield from self._read_reasoning()
        yield from self._read_lead()
        if self._format is not None and self._format.read_bare is not None:
            yield from self._read_calls(self._format.read_bare(self._calls))
        while True:
            marker = yield from self._read_content()
            if marker is None:
                return
            if marker in self._dropped:
                self._cursor.mark()
            elif marker in self._turn_ends:
                yield from self._read_turn_end()
            elif self._format is not None:
                yield from self._read_calls(self._format.read(self._calls, marker))

    def _read_reasoning(self) -> Reading[None]:
        cursor, opened = self._cursor, self._opened
        space = yield from cursor.whitespace()
        # A model may repeat the tag that the template wrote for it.
        repeated = yield from cursor.match(*(tags.open for tags in self._reasoning))
        if repeated is not None:
            opened = next(tags for tags in self._reasoning if tags.open == repeated)
        if opened is None:
            # Where there is nothing to close, a closing tag says that there is no reasoning.
            if (yield from cursor.match(*(tags.close for tags in self._reasoning))):
                yield from cursor.whitespace()
            else:
                self._answer.content(space)
        else:
            while (marker := (yield from self._next_piece(opened.close))) is not None:
                if marker == opened.close:
                    break
                self._answer.reasoning(marker)
            self._answer.after_reasoning()
        cursor.mark()

    def _read_lead(self) -> Reading[None]:
        if self._leads and (yield from self._cursor.match(*self._leads)):
            self._answer.after_reasoning()
            self._cursor.mark()

    def _read_content(self) -> Reading[str | None]:
        """Content up to the next marker, which is returned; None at the end."""
        openers = self._format.openers if self._format is not None else ()
        markers = (*openers, *self._dropped, *self._turn_ends)
        while (piece := (yield from self._next_piece(*markers))) is not None:
            if piece in markers:
                return piece
            self._answer.content(piece)
            self._cursor.mark()
        return None

    def _next_piece(self, *markers: str) -> Reading[str | None]:
        """The next marker, or text in front of one; None at the end."""
        cursor = self._cursor
        while (yield from cursor.more()):
            found = first_marker(cursor.ahead, markers)
            n_held = 0 if cursor.final or found else held_back(cursor.ahead, markers)
            n = found[0] if found else len(cursor.ahead) - n_held
            if found and n == 0:
                longer = (m for m in markers if len(m) > len(cursor.ahead))
                if not cursor.final and any(m.startswith(cursor.ahead) for m in longer):
                    yield
                    continue
                return cursor.take(len(found[1]))
            if n > 0:
                return cursor.take(n)
            yield
        return None

    def _read_calls(self, reading: Reading[bool]) -> Reading[None]:
        if not (yield from reading):
            # Not a call after all: what was read is part of what the model says.
            self._answer.content(self._cursor.read)
        self._cursor.mark()

    def _read_turn_end(self) -> Reading[None]:
        yield from self._cursor.whitespace()
        if (yield from self._cursor.more()):
            self._answer.content(self._cursor.read)
        self._cursor.mark()


def is_turn_end(text: str) -> bool:
    """Whether a text looks like the one token that ends a turn (``<|im_end|>``, ``</s>``)."""
    brackets = text[:1] + text[-1:]
    return (
        len(text) > 2
        and brackets in ("<>", "[]", "[[")
        and text.count(text[0]) == (2 if brackets == "[[" else 1)
        and not set(text) & set(WHITESPACE)
    )

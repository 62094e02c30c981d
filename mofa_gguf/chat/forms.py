"""How a model's answers look, as grammars: calls of tools, answers of a given form, reasoning.

The grammars are texts in llguidance's variant of Lark's syntax; whoever decodes compiles them. An
answer may reason first, and a model may begin a call in the middle of its text, so besides
grammars there are the texts at which one of them begins to hold.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mofa_gguf.chat.cursor import WHITESPACE
from mofa_gguf.chat.formats import FREE, Opening, ToolCallFormat
from mofa_gguf.chat.formats.grammar import Lark
from mofa_gguf.chat.reasoning import ReasoningTags, opened_by
from mofa_gguf.chat.tools import tool_schemas

Tools = list[dict[str, Any]]

_BLANKS = "/[ \\n]{0,2}/"


@dataclass(frozen=True)
class CallTrigger:
    """A text that begins a call, as a regular expression, and the grammar of what follows it.

    With ``at_start`` it only counts at the beginning of an answer, after reasoning.
    """

    pattern: str
    grammar: str
    at_start: bool


@dataclass(frozen=True)
class ReasoningMarks:
    """The texts around reasoning."""

    open: str
    close: str


class AnswerForms:
    """Grammars of answers to one prompt.

    ``prompt`` is the rendered prompt: what it has opened, a call or reasoning, is taken into
    account. ``tokens`` are the texts that the vocabulary has as tokens of their own, with their
    ids. ``free`` names tools whose arguments a grammar does not look at. Methods raise
    CallsNotDescribable where calls of this form, or a tool's arguments, have no grammar.
    """

    def __init__(
        self,
        *,
        call_format: ToolCallFormat,
        reasoning: tuple[ReasoningTags, ...],
        parallel: bool,
        prompt: str,
        tokens: Mapping[str, int],
    ) -> None:
        self._format = call_format
        self._reasoning = reasoning
        self._prompt = prompt
        self._tokens = tokens
        self.parallel = parallel
        """Whether the template knows several calls in one answer."""

    @property
    def reasoning(self) -> tuple[ReasoningMarks, ...]:
        """The marks of reasoning that may begin the answer."""
        if self.opened is None and self._closed:
            return ()
        return tuple(ReasoningMarks(tags.open, tags.close) for tags in self._reasoning)

    @property
    def opened(self) -> ReasoningMarks | None:
        """The marks of the reasoning that the prompt has opened."""
        tags = opened_by(self._prompt, self._reasoning)
        return None if tags is None else ReasoningMarks(tags.open, tags.close)

    @property
    def _closed(self) -> bool:
        """Whether the prompt says that there is no reasoning, by opening and closing it."""
        end = self._prompt.rstrip(WHITESPACE)
        return any(end.endswith(tags.close) for tags in self._reasoning if not tags.by_rendering)

    @property
    def may_reason(self) -> bool:
        """Whether a model of this vocabulary begins reasoning itself: the mark is a token of it."""
        return any(self._is_token(tags.open) for tags in self.reasoning)

    def calls(self, tools: Tools, *, parallel: bool = True, resumed: bool = False) -> str:
        """A grammar of an answer that calls one of the tools, or with ``parallel`` several.

        ``resumed``: it stands behind reasoning.
        """
        return self.answer(tools=tools, content=False, parallel=parallel, resumed=resumed)

    def answer(
        self,
        *,
        tools: Tools | None = None,
        content: bool = True,
        parallel: bool = True,
        resumed: bool = False,
        reasoning: bool = False,
    ) -> str:
        """A grammar of whole answers: calls of ``tools``, or with ``content`` what stands for
        ``@content``, or with ``reasoning`` one of the texts that open it."""
        lark = Lark(prompt="" if resumed else self._prompt, tokens=self._tokens)
        ways = []
        if content:
            before, after = self._format.frame
            ways.append(f"{lark.opening(before)} @content {lark.literal(after)}".strip())
        if tools:
            schemas = tool_schemas(tools)
            ways.append(self._format.calls(lark, schemas, parallel=parallel and self.parallel))
        if reasoning:
            ways += [lark.literal(t.open) for t in self._reasoning if self._is_token(t.open)]
        start = lark.any_of(ways) if len(ways) > 1 else ways[0]
        if resumed:
            resumes = self._format.resumes
            lead = f"({lark.literal(resumes)})?" if resumes else ""
            start = f"{_BLANKS} {lead} {start}"
        return lark.grammar(start)

    @property
    def has_frame(self) -> bool:
        """Whether an answer that is no call has texts around it."""
        return any(self._format.frame)

    def triggers(
        self, tools: Tools, *, parallel: bool = True, free: Collection[str] = ()
    ) -> list[CallTrigger]:
        """The texts that begin a call in the middle of an answer, each with its grammar."""
        schemas = {
            name: FREE if name in free else schema for name, schema in tool_schemas(tools).items()
        }
        several = parallel and self.parallel and self._format.in_blocks
        found = []
        for opening in self._format.openings or map(Opening, self._format.openers):
            if opening.in_prompt and not self._prompt.endswith(opening.text):
                continue
            lark = Lark(written=opening.text, tokens=self._tokens)
            start = self._format.calls(lark, schemas, parallel=several)
            pattern = _pattern(opening, schemas)
            found.append(CallTrigger(pattern, lark.grammar(start), opening.at_start))
        return found

    def _is_token(self, text: str) -> bool:
        return any(token in text for token in self._tokens)


def _pattern(opening: Opening, names: Iterable[str]) -> str:
    # Models are not strict about blanks in JSON.
    text = re.sub(r'(?<=[{:,"])\\ ', r"\\s*", re.escape(opening.text))
    pattern = "" if opening.in_prompt else text
    if not opening.names:
        return pattern
    in_json = '"' in opening.names
    spelled = (json.dumps(name, ensure_ascii=False)[1:-1] if in_json else name for name in names)
    following = (re.escape(opening.names.replace("{name}", name)) for name in spelled)
    return f"{pattern}(?={'|'.join(following)})"

"""Learning what a template can do by rendering small conversations with it.

Nothing is taken from a model's name. A template takes tools if a tool's name shows up in what it
renders; its tool-call format is the one that reads the template's own rendering of a call back.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from os.path import commonprefix  # character by character, which is what is wanted here
from typing import Any

from mofa_gguf.chat.derive import derive
from mofa_gguf.chat.errors import TemplateError, TemplateTooCostly
from mofa_gguf.chat.findings import ArgumentsForm, Findings, TemplateCapabilities
from mofa_gguf.chat.formats import FORMATS, ToolCallFormat
from mofa_gguf.chat.messages import Message
from mofa_gguf.chat.parser import OutputParser, is_turn_end
from mofa_gguf.chat.program import TemplateProgram
from mofa_gguf.chat.reasoning import ReasoningTags, opened_by, tags_in
from mofa_gguf.chat.response_template import NO_HINTS, ResponseHints
from mofa_gguf.contract import ChatMessage

_NAME, _KEY, _VALUE = "probe_tool", "probe_key", "probe_value"
_TEXT, _SYSTEM, _RESULT = "probe-text", "probe-system", "probe-result"
_SECOND = "probe-second"
_IDS = ("probe0001", "probe0002")
_ARGUMENTS = {_KEY: _VALUE, "probe_accent": "é"}
_TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": _NAME,
        "description": "A probe.",
        "parameters": {
            "type": "object",
            "properties": {_KEY: {"type": "string", "description": "A probe."}},
            "required": [_KEY],
        },
    },
}
_USER: Message = {"role": "user", "content": _TEXT}


def probe(program: TemplateProgram, hints: ResponseHints = NO_HINTS) -> Findings:
    """Probe a template; ``hints`` are added where rendering tells nothing.

    Raises TemplateTooCostly when rendering uses up its limits.
    """
    return _Probe(program, hints).findings()


class _Probe:
    def __init__(self, program: TemplateProgram, hints: ResponseHints) -> None:
        self._program = program
        self._hints = hints
        self._rendered: dict[str, str | None] = {}

    def _render(self, *messages: Message, tools: bool = False, prompt: bool = False) -> str | None:
        """The rendering, or None when the template does not take the conversation."""
        key = json.dumps([messages, tools, prompt])
        if key not in self._rendered:
            self._rendered[key] = self._rendering(*messages, tools=tools, prompt=prompt)
        return self._rendered[key]

    def _rendering(self, *messages: Message, tools: bool, prompt: bool) -> str | None:
        try:
            return self._program.render(
                list(messages), tools=[_TOOL] if tools else None, add_generation_prompt=prompt
            )
        except TemplateTooCostly:
            raise
        except TemplateError:
            return None

    @cached_property
    def _tags(self) -> tuple[ReasoningTags, ...]:
        thinking = {"reasoning_content": _TEXT, "thinking": _TEXT}
        prompt = self._render(_USER, tools=True, prompt=True)
        answered = [
            self._render(_USER, {**_call_message(form), **thinking}, tools=True)
            for form in (_ARGUMENTS, json.dumps(_ARGUMENTS))
        ]
        found = tags_in(self._program.source, "".join(filter(None, [prompt, *answered])))
        known = {tags.open for tags in found}
        return (*found, *(tags for tags in self._hints.reasoning if tags.open not in known))

    def findings(self) -> Findings:
        form = self._arguments_form()
        arguments: object = (
            json.dumps(_ARGUMENTS, ensure_ascii=False) if form == "text" else _ARGUMENTS
        )
        takes_tools = _NAME in (self._render(_USER, tools=True) or "")
        call_format = self._call_format(arguments) if takes_tools else None
        if takes_tools and call_format is None:
            call_format = self._hints.call_format
        reasoning = self._tags
        prompt = self._render(_USER, prompt=True)
        opened = opened_by(prompt, reasoning) if prompt is not None else None
        return Findings(
            capabilities=TemplateCapabilities(
                tools=call_format is not None,
                tool_format=call_format.name if call_format else None,
                tool_results=self._takes_results(arguments),
                parallel_tool_calls=call_format is not None
                and self._reads_back(call_format, arguments, n_calls=2),
                system_role=self._takes_system(),
                reasoning=bool(reasoning),
                reasoning_always=opened is not None,
                content_parts=self._takes_parts(),
                image_parts=self._takes_images(),
            ),
            call_format=call_format,
            arguments_form=form,
            needs_content=self._needs_content(arguments),
            result_parts=self._takes_result_parts(arguments),
            reasoning=reasoning,
            opened=opened,
            turn_ends=tuple(
                dict.fromkeys((*self._turn_ends(call_format, arguments), *self._hints.turn_ends))
            ),
        )

    def _takes_system(self) -> bool:
        system: Message = {"role": "system", "content": _SYSTEM}
        text = self._render(system, _USER) or self._render(system, _USER, tools=True)
        return text is not None and _SYSTEM in text

    def _takes_parts(self) -> bool:
        text = self._render({"role": "user", "content": [{"type": "text", "text": _TEXT}]})
        return text is not None and _TEXT in text and not _shows_python(text, _TEXT)

    def _takes_images(self) -> bool:
        words = {"type": "text", "text": _TEXT}
        image = {"type": "image", "image_url": {"url": "probe-image"}}
        without = self._render({"role": "user", "content": [words]})
        with_image = self._render({"role": "user", "content": [words, image]})
        return (
            with_image is not None
            and with_image != without
            and not _shows_python(with_image, "image_url")
        )

    def _arguments_form(self) -> ArgumentsForm:
        """The form in which tool calls want their arguments.

        "either" only where both give the same. Templates that take both and write them differently
        have a form of their own for objects, which is the one the model knows.
        """
        text = json.dumps(_ARGUMENTS, ensure_ascii=False)
        as_object = self._render(_USER, _call_message(_ARGUMENTS), tools=True) or ""
        as_text = self._render(_USER, _call_message(text), tools=True) or ""
        takes_object = (
            _KEY in as_object and _VALUE in as_object and not _shows_python(as_object, _KEY)
        )
        takes_text = f'"{_KEY}": "{_VALUE}"' in as_text
        if takes_object and as_object != as_text:
            return "object"
        return "text" if takes_text and not takes_object else "either"

    def _needs_content(self, arguments: object) -> bool:
        """Whether a message with tool calls must have content, if only empty text."""
        call = _call_message(arguments)
        without = {key: value for key, value in call.items() if key != "content"}
        return (
            self._render(_USER, without, tools=True) is None
            and self._render(_USER, call, tools=True) is not None
        )

    def _takes_results(self, arguments: object) -> bool:
        text = self._render(_USER, _call_message(arguments), _result(_RESULT), tools=True)
        return text is not None and _RESULT in text

    def _takes_result_parts(self, arguments: object) -> bool:
        """Whether parts are rendered as their texts, and not as Python prints a list of them."""
        parts = [{"type": "text", "text": text} for text in (_RESULT, _SECOND)]
        text = self._render(_USER, _call_message(arguments), _result(parts), tools=True)
        shown = text is not None and _RESULT in text and _SECOND in text
        return shown and not _shows_python(text or "", "text")

    def _call_format(self, arguments: object) -> ToolCallFormat | None:
        found = [each for each in FORMATS if self._reads_back(each, arguments, n_calls=1)]
        if found:
            # Several may read the calls; the template's own leaves nothing over and writes alike.
            rendered = self._render(_USER, _call_message(arguments), tools=True) or ""
            return min(found, key=lambda each: self._strangeness(each, arguments, rendered))
        derived = self._derived(arguments)
        if derived is not None:
            return derived
        # Templates that tell the format but do not render calls of earlier turns.
        described = self._render(_USER, tools=True) or ""
        silent = _VALUE not in (self._render(_USER, _call_message(arguments), tools=True) or "")
        matching = [f for f in FORMATS if f.read_bare is None and f.is_told_of(described)]
        if not silent or not matching:
            return None
        return min(matching, key=lambda f: sum(mark not in described for mark in f.markers))

    def _strangeness(
        self, call_format: ToolCallFormat, arguments: object, rendered: str
    ) -> tuple[int, int]:
        message = self._read_back(call_format, arguments)
        content = message.content if message is not None else None
        unwritten = sum(text not in rendered for text in call_format.spelling)
        return len(content) if isinstance(content, str) else 0, unwritten

    def _derived(self, arguments: object) -> ToolCallFormat | None:
        """A format made from the difference that a call makes, if it reads its own probes."""
        prompt = self._render(_USER, tools=True, prompt=True)
        if prompt is None:
            return None
        renderings = (
            self._render(_USER, _call_message(arguments, n_calls=n), tools=True) for n in (1, 2)
        )
        texts = [None if whole is None else self._answer(prompt, whole) for whole in renderings]
        plain = self._render(_USER, {"role": "assistant", "content": _TEXT}, tools=True)
        if texts[0] is None or plain is None:
            return None
        tail = plain[plain.rindex(_TEXT) + len(_TEXT) :] if _TEXT in plain else ""
        derived = derive(texts[0], texts[1], name=_NAME, arguments=_ARGUMENTS, tail=tail)
        if derived is None or not self._reads_back(derived, arguments, n_calls=1):
            return None
        if texts[1] not in (None, texts[0]) and not self._reads_back(derived, arguments, n_calls=2):
            return None
        return derived

    def _reads_back(self, call_format: ToolCallFormat, arguments: object, *, n_calls: int) -> bool:
        """Whether the format finds in the rendered answer the very calls that were put in."""
        message = self._read_back(call_format, arguments, n_calls=n_calls)
        calls = (message.tool_calls if message is not None else None) or []
        return len(calls) == n_calls and all(
            call.function.name == _NAME and call.function.parse_arguments() == _ARGUMENTS
            for call in calls
        )

    def _read_back(
        self, call_format: ToolCallFormat, arguments: object, *, n_calls: int = 1
    ) -> ChatMessage | None:
        prompt = self._render(_USER, tools=True, prompt=True)
        whole = self._render(_USER, _call_message(arguments, n_calls=n_calls), tools=True)
        if prompt is None or whole is None:
            return None
        tags = self._tags
        answer = self._answer(prompt, whole, *call_format.openers, *call_format.dropped)
        parser = OutputParser(
            call_format=call_format,
            tool_names={_NAME},
            schemas={_NAME: _TOOL["function"]["parameters"]},
            reasoning=tags,
            opened=opened_by(whole[: len(whole) - len(answer)], tags),
        )
        parser.feed(answer)
        return parser.finish()

    def _answer(self, prompt: str, whole: str, *marks: str) -> str:
        tags = self._tags
        marks += tuple(mark for pair in tags for mark in (pair.open, pair.close))
        return whole[answer_start(prompt, whole, marks) :]

    def _turn_ends(self, call_format: ToolCallFormat | None, arguments: object) -> tuple[str, ...]:
        """The tokens behind an assistant's text and behind its calls, as the template writes it."""
        tails = []
        answer: Message = {"role": "assistant", "content": _RESULT}
        text = self._render(_USER, answer) or self._render(_USER, answer, tools=True) or ""
        if _RESULT in text:
            tails.append(text[text.rindex(_RESULT) + len(_RESULT) :])
        message = self._read_back(call_format, arguments) if call_format is not None else None
        if message is not None and isinstance(message.content, str):
            tails.append(message.content)
        ends = dict.fromkeys(tail.strip() for tail in tails)
        return tuple(end for end in ends if is_turn_end(end))


def answer_start(prompt: str, whole: str, marks: Sequence[str]) -> int:
    """Where the answer begins in a conversation that was rendered with it.

    That is where it leaves the prompt, or at the beginning of a mark that both begin alike.
    """
    start = len(commonprefix([prompt, whole]))  # noqa: RUF071
    longest = max(map(len, marks), default=0)
    for n in range(min(longest, start), 0, -1):
        if any(len(mark) > n and whole.startswith(mark, start - n) for mark in marks):
            return start - n
    return start


def _result(content: object) -> Message:
    return {"role": "tool", "name": _NAME, "tool_call_id": _IDS[0], "content": content}


def _call_message(arguments: object, *, n_calls: int = 1) -> Message:
    calls = [
        {"id": call_id, "type": "function", "function": {"name": _NAME, "arguments": arguments}}
        for call_id in _IDS[:n_calls]
    ]
    return {"role": "assistant", "content": "", "tool_calls": calls}


def _shows_python(text: str, word: str) -> bool:
    """Whether a word stands in a text as Python prints it inside a list or dictionary."""
    return f"'{word}'" in text

"""ChatTemplate: a model's conversation format, both ways."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from functools import cached_property
from typing import Any

from mofa_gguf.chat.adapt import render_adapted
from mofa_gguf.chat.answer import CallIds, ids_for
from mofa_gguf.chat.errors import TemplateSyntax, UnsupportedContent
from mofa_gguf.chat.findings import Findings, TemplateCapabilities
from mofa_gguf.chat.formats import HERMES
from mofa_gguf.chat.forms import AnswerForms
from mofa_gguf.chat.limits import RenderLimits
from mofa_gguf.chat.messages import (
    Message,
    arguments_as_object,
    arguments_as_text,
    join_text_parts,
    map_arguments,
    other_than_text,
    plain,
    template_messages,
    template_tools,
)
from mofa_gguf.chat.parser import OutputParser
from mofa_gguf.chat.probe import probe
from mofa_gguf.chat.program import TemplateProgram
from mofa_gguf.chat.reasoning import THINK, opened_by
from mofa_gguf.chat.response_template import ResponseHints, read_response_template
from mofa_gguf.chat.tools import tool_names, tool_schemas
from mofa_gguf.contract import ChatMessage, Tool

Messages = Iterable[ChatMessage | Mapping[str, Any]]
Tools = Iterable[Tool | Mapping[str, Any]]


class ChatTemplate:
    """Renders conversations with a model's own template and reads the model's answers.

    ``source`` is the Jinja template (a GGUF's ``tokenizer.chat_template``), or several by name;
    of several, "tool_use" is taken when there are tools and "default" otherwise, as transformers
    does. ``response_template`` is transformers' description of an answer, as JSON, see
    :mod:`mofa_gguf.chat.response_template`. ``now`` is the clock behind ``strftime_now``. Safe to
    use from several threads.

    Raises TemplateSyntax when a template cannot be compiled.
    """

    def __init__(
        self,
        source: str | Mapping[str, str],
        *,
        bos_token: str = "",
        eos_token: str = "",
        response_template: str | None = None,
        limits: RenderLimits | None = None,
        now: Callable[[], datetime] = datetime.now,
    ) -> None:
        sources = {"default": source} if isinstance(source, str) else dict(source)
        if not sources:
            raise TemplateSyntax("there is none")
        default = sources["default"] if "default" in sources else next(iter(sources.values()))
        constants = {"bos_token": bos_token, "eos_token": eos_token}
        limits = limits or RenderLimits()
        hints = read_response_template(response_template)

        def variant(text: str) -> _Variant:
            # Kimi K2's template numbers its calls by way of a list.
            program = TemplateProgram(
                text, constants=constants, limits=limits, now=now, growing_lists=True
            )
            return _Variant(program, hints)

        self._default = variant(default)
        self._with_tools = variant(sources["tool_use"]) if "tool_use" in sources else self._default

    @property
    def source(self) -> str:
        """The Jinja source used for conversations without tools."""
        return self._default.program.source

    @property
    def capabilities(self) -> TemplateCapabilities:
        """What the template can express, found out by rendering probes with it (once).

        Raises TemplateTooCostly for a template that cannot be rendered within limits.
        """
        return self._with_tools.findings.capabilities

    @property
    def markers(self) -> frozenset[str]:
        """Texts that an answer's parser must get to see.

        A vocabulary may hold some of them as control tokens, which have no text unless asked for.
        """
        found = {tag for tags in self._reasoning() for tag in (tags.open, tags.close)}
        call_format = self._with_tools.findings.call_format
        return frozenset(found | set(call_format.markers if call_format is not None else ()))

    def render(
        self,
        messages: Messages,
        tools: Tools | None = None,
        add_generation_prompt: bool = True,
        **template_arguments: Any,
    ) -> str:
        """The conversation as the model reads it: what transformers' ``apply_chat_template`` gives.

        ``template_arguments`` are handed to the template as they are (``enable_thinking``,
        ``documents``). Tool-call arguments become objects or JSON text as the template wants
        them, missing content becomes "" where it must be there, and text parts become one text
        where it takes no parts. A conversation that the template refuses is adapted, see
        :mod:`mofa_gguf.chat.adapt`.

        Raises TemplateRefused with the template's own words, UnsupportedContent for images, audio
        or video that it has no place for, TemplateTooCostly, or TemplateFailed.
        """
        tool_list = template_tools(tools)
        variant = self._with_tools if tool_list else self._default
        arguments = plain(template_arguments)

        def render(candidate: list[Message]) -> str:
            return variant.program.render(
                candidate,
                tools=tool_list,
                add_generation_prompt=add_generation_prompt,
                arguments=arguments,
            )

        return render_adapted(variant.fit(template_messages(messages)), render)

    def parser(
        self,
        tools: Tools | None = None,
        prompt: str | None = None,
        *,
        ids: CallIds | None = None,
    ) -> OutputParser:
        """A parser for one answer, fed with text as it comes.

        ``prompt`` is the rendered prompt: its end tells whether the answer begins inside reasoning;
        without it, the template's own habit does. ``tools`` are the tools that were offered: with
        an empty list no call is looked for, with None only calls that marks make unmistakable.
        ``ids`` makes ids for calls without one; by default they follow from prompt and call.
        """
        findings = self._with_tools.findings
        # An empty list says something else here than in render: none were offered.
        definitions = None if tools is None else template_tools(tools) or []
        offered = tool_names(definitions)
        reasoning = self._reasoning()
        opened = findings.opened if prompt is None else opened_by(prompt, reasoning)
        call_format = findings.call_format or HERMES
        looked_for = offered != frozenset() or call_format.frames_text
        return OutputParser(
            call_format=call_format if looked_for else None,
            marks=findings.call_format,
            tool_names=offered,
            schemas=tool_schemas(definitions),
            reasoning=reasoning,
            opened=opened,
            turn_ends=findings.turn_ends,
            ids=ids or ids_for(prompt),
        )

    def parse(
        self, text: str, tools: Tools | None = None, prompt: str | None = None
    ) -> ChatMessage:
        """The message that a whole answer amounts to; see :meth:`parser`."""
        parser = self.parser(tools, prompt)
        parser.feed(text)
        return parser.finish()

    def forms(self, prompt: str, *, tokens: Mapping[str, int] | None = None) -> AnswerForms:
        """How answers to a rendered prompt look, as grammars.

        ``tokens`` are those of :attr:`call_marks` that are tokens of the vocabulary, with their
        ids: the grammars mean the tokens.
        """
        findings = self._with_tools.findings
        return AnswerForms(
            call_format=findings.call_format or HERMES,
            reasoning=self._reasoning(),
            parallel=findings.capabilities.parallel_tool_calls,
            prompt=prompt,
            tokens=tokens or {},
        )

    @property
    def call_marks(self) -> tuple[str, ...]:
        """The texts in and around calls and answers that a vocabulary may hold as tokens."""
        findings = self._with_tools.findings
        call_format = findings.call_format or HERMES
        around = (*call_format.frame, call_format.resumes)
        tags = tuple(text for pair in self._reasoning() for text in (pair.open, pair.close))
        return (*call_format.markers, *filter(None, around), *tags)

    @cached_property
    def variables(self) -> frozenset[str]:
        """The names of the arguments that the template looks at."""
        return self._default.program.variables | self._with_tools.program.variables

    def _reasoning(self) -> tuple[Any, ...]:
        # Models reason in <think> even where a template says nothing of it.
        return self._with_tools.findings.reasoning or (THINK,)


class _Variant:
    """One of a model's templates and what was found out about it."""

    def __init__(self, program: TemplateProgram, hints: ResponseHints) -> None:
        self.program = program
        self._hints = hints
        self._findings: Findings | None = None

    @property
    def findings(self) -> Findings:
        # Two threads may probe at the same time; they find the same.
        if self._findings is None:
            self._findings = probe(self.program, self._hints)
        return self._findings

    def fit(self, messages: list[Message]) -> list[Message]:
        """The messages in the forms that this template takes; probes it only where that matters."""
        if any("tool_calls" in message for message in messages):
            form = self.findings.arguments_form
            if form == "object":
                messages = map_arguments(messages, arguments_as_object)
            elif form == "text":
                messages = map_arguments(messages, arguments_as_text)
        if any("content" not in message for message in messages) and self.findings.needs_content:
            messages = [{"content": "", **message} for message in messages]
        if any(isinstance(message.get("content"), list) for message in messages):
            kind = other_than_text(messages)
            if kind is not None and not self.findings.capabilities.image_parts:
                raise UnsupportedContent(kind)
            if kind is None and not self.findings.capabilities.content_parts:
                messages = join_text_parts(messages)
            elif not self.findings.result_parts:
                messages = join_text_parts(messages, role="tool")
        return messages

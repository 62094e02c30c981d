"""A compiled chat template: rendered exactly as written, within limits, with our errors."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import cached_property
from typing import Any

import jinja2
import jinja2.meta

from mofa_gguf.chat.errors import (
    TemplateFailed,
    TemplateRefused,
    TemplateSyntax,
    TemplateTooCostly,
)
from mofa_gguf.chat.limits import Meter, RenderLimits
from mofa_gguf.chat.messages import Message
from mofa_gguf.chat.sandbox import ChatEnvironment, render
from mofa_gguf.chat.template_words import Refusal

_MAX_SOURCE_CHARS = 65_536  # several times the largest template in use


class TemplateProgram:
    """One Jinja chat template, compiled. Safe to use from several threads.

    ``constants`` are variables that every rendering gets, such as ``bos_token``.
    ``growing_lists`` lets the template append text to lists, which transformers forbids.
    Raises TemplateSyntax when the template cannot be compiled.
    """

    def __init__(
        self,
        source: str,
        *,
        constants: Mapping[str, object],
        limits: RenderLimits,
        now: Callable[[], datetime],
        growing_lists: bool = False,
    ) -> None:
        if len(source) > _MAX_SOURCE_CHARS:
            raise TemplateSyntax(f"it has {len(source)} characters, above {_MAX_SOURCE_CHARS}")
        self.source = source
        self._constants = dict(constants)
        self._limits = limits
        self._environment = ChatEnvironment(now=now, growing_lists=growing_lists)
        self._template = self._compile(source)

    def _compile(self, source: str) -> jinja2.Template:
        try:
            return self._environment.from_string(source)
        except jinja2.TemplateSyntaxError as error:
            raise TemplateSyntax(error.message or "syntax error", line=error.lineno) from error
        except RecursionError as error:
            raise TemplateSyntax("it is nested too deeply") from error
        except (MemoryError, OverflowError, SyntaxError, ValueError) as error:
            # Python's compiler has limits of its own, which Jinja does not check.
            raise TemplateSyntax(str(error) or type(error).__name__) from error

    @cached_property
    def variables(self) -> frozenset[str]:
        """The names that the template uses and does not define itself."""
        return frozenset(
            jinja2.meta.find_undeclared_variables(self._environment.parse(self.source))
        )

    def render(
        self,
        messages: list[Message],
        *,
        tools: list[dict[str, Any]] | None = None,
        add_generation_prompt: bool = False,
        arguments: Mapping[str, object] | None = None,
    ) -> str:
        """The template's text for these messages.

        Raises TemplateRefused with the template's own words, TemplateTooCostly, or TemplateFailed
        for everything else that goes wrong inside the template.
        """
        variables = {
            "messages": messages,
            "tools": tools,
            "documents": None,
            "add_generation_prompt": add_generation_prompt,
            **self._constants,
            **(arguments or {}),
        }
        meter = Meter(self._limits, inputs=variables)
        try:
            return render(self._environment, self._template, variables, meter)
        except TemplateTooCostly:
            raise
        except Refusal as error:
            raise TemplateRefused(error.message or "no reason given") from error
        except RecursionError as error:
            raise TemplateFailed("it calls itself without end", line=self._line(error)) from error
        except MemoryError as error:
            raise TemplateTooCostly("it ran out of memory") from error
        except Exception as error:
            # A template is a foreign program: it can raise whatever its expressions raise.
            problem = str(error) or type(error).__name__
            raise TemplateFailed(problem, line=self._line(error)) from error

    def _line(self, error: BaseException) -> int | None:
        """The line of the template that an exception came from."""
        line = None
        for frame, python_line in traceback.walk_tb(error.__traceback__):
            if frame.f_globals.get("__jinja_template__") is self._template:
                line = self._template.get_corresponding_lineno(python_line)
        return line

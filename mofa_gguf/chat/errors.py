"""What can go wrong between messages and text.

TemplateError
├── TemplateSyntax       the template is not valid Jinja (``line``)
├── TemplateRefused      the template itself refuses the conversation (``reason``: its own words)
├── TemplateFailed       the template stumbled over the conversation (``line``)
├── TemplateTooCostly    rendering needs more time or memory than it may have (``limit``)
├── UnsupportedContent   an image, audio or video for a model without the sense (``kind``)
└── CallsNotDescribable  no grammar says how a call of these tools must look (``what``)
"""

from __future__ import annotations


class TemplateError(Exception):
    """Base of everything the chat layer raises on purpose."""


class TemplateSyntax(TemplateError):
    """The template cannot be compiled: it is broken Jinja, or far too large."""

    def __init__(self, problem: str, *, line: int | None = None) -> None:
        where = "" if line is None else f" in line {line}"
        super().__init__(f"the chat template is broken{where}: {problem}")
        self.problem = problem
        self.line = line


class TemplateRefused(TemplateError):
    """The template called ``raise_exception``: this model does not take such a conversation."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the model's chat template refuses this conversation: {reason}")
        self.reason = reason


class TemplateFailed(TemplateError):
    """The template met something in the conversation that it cannot handle."""

    def __init__(self, problem: str, *, line: int | None = None) -> None:
        where = "" if line is None else f" in line {line}"
        super().__init__(f"the chat template failed{where}: {problem}")
        self.problem = problem
        self.line = line


class TemplateTooCostly(TemplateError):
    """Rendering was stopped because it used up the time or memory it may have."""

    def __init__(self, limit: str) -> None:
        super().__init__(f"rendering the chat template was stopped: {limit}")
        self.limit = limit


class UnsupportedContent(TemplateError):
    """A message carries something other than text that the model cannot take in."""

    def __init__(self, kind: str) -> None:
        super().__init__(
            f"a message carries {kind} content and this model's chat template takes none; send text"
        )
        self.kind = kind


class CallsNotDescribable(TemplateError):
    """Calls in this model's form, or a tool's arguments, cannot be written down as a grammar."""

    def __init__(self, what: str, *, tool: str | None = None) -> None:
        where = "" if tool is None else f" of tool {tool!r}"
        super().__init__(f"a call cannot be forced: {what}{where}; use tool_choice 'auto'")
        self.what = what
        self.tool = tool

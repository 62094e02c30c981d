"""Messages and text: rendering a model's chat template, reading its answers.

:class:`ChatTemplate` does both. Nothing here knows llama.cpp, or any model by name.
"""

from __future__ import annotations

from mofa_gguf.chat.answer import CallIds
from mofa_gguf.chat.errors import (
    CallsNotDescribable,
    TemplateError,
    TemplateFailed,
    TemplateRefused,
    TemplateSyntax,
    TemplateTooCostly,
    UnsupportedContent,
)
from mofa_gguf.chat.fallback import default_template, describe_tools
from mofa_gguf.chat.findings import TemplateCapabilities
from mofa_gguf.chat.formats import Call
from mofa_gguf.chat.forms import AnswerForms, CallTrigger, ReasoningMarks
from mofa_gguf.chat.limits import RenderLimits
from mofa_gguf.chat.parser import OutputParser
from mofa_gguf.chat.shield import Shield, cut
from mofa_gguf.chat.template import ChatTemplate

__all__ = [
    "AnswerForms",
    "Call",
    "CallIds",
    "CallTrigger",
    "CallsNotDescribable",
    "ChatTemplate",
    "OutputParser",
    "ReasoningMarks",
    "RenderLimits",
    "Shield",
    "TemplateCapabilities",
    "TemplateError",
    "TemplateFailed",
    "TemplateRefused",
    "TemplateSyntax",
    "TemplateTooCostly",
    "UnsupportedContent",
    "cut",
    "default_template",
    "describe_tools",
]

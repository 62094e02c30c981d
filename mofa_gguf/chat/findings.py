"""What is known of a chat template once it was probed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mofa_gguf.chat.formats import ToolCallFormat
from mofa_gguf.chat.reasoning import ReasoningTags

ArgumentsForm = Literal["object", "text", "either"]


@dataclass(frozen=True, kw_only=True)
class TemplateCapabilities:
    """What a model's chat template can express.

    ``tools`` means that the template describes tools and that its calls can be read back.
    ``tool_format`` names the format of those calls. ``reasoning`` means that the template knows
    reasoning marks, ``reasoning_always`` that its prompt opens them by itself. ``image_parts``
    says that the template has a place for images, not that the model's file has eyes.
    """

    tools: bool
    tool_format: str | None
    tool_results: bool
    parallel_tool_calls: bool
    system_role: bool
    reasoning: bool
    reasoning_always: bool
    content_parts: bool
    image_parts: bool


@dataclass(frozen=True, kw_only=True)
class Findings:
    """Everything that probing a template tells; ``capabilities`` is the part for callers."""

    capabilities: TemplateCapabilities
    call_format: ToolCallFormat | None
    arguments_form: ArgumentsForm
    needs_content: bool
    result_parts: bool
    """Whether the result of a tool may come in parts."""
    reasoning: tuple[ReasoningTags, ...]
    opened: ReasoningTags | None
    turn_ends: tuple[str, ...]

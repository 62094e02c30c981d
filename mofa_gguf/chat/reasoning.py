"""How models mark their reasoning, and what a prompt's end says about it."""

from __future__ import annotations

from dataclasses import dataclass

from mofa_gguf.chat.cursor import WHITESPACE


@dataclass(frozen=True)
class ReasoningTags:
    """The texts around a model's reasoning."""

    open: str
    close: str
    by_rendering: bool = False
    """Whether the tags are too common a text for a template's source to tell; its renderings do."""


# Each as the chat templates of its models write it.
THINK = ReasoningTags("<think>", "</think>")  # DeepSeek R1, Qwen 3, GLM and most others
_KNOWN = (
    THINK,
    ReasoningTags("<|START_THINKING|>", "<|END_THINKING|>"),  # Command R
    ReasoningTags("[THINK]", "[/THINK]"),  # Magistral
    ReasoningTags("<seed:think>", "</seed:think>"),  # Seed-OSS
    ReasoningTags("<|inner_prefix|>", "<|inner_suffix|>"),  # Apertus
    ReasoningTags("<|channel>thought", "<channel|>"),  # Gemma 4
    ReasoningTags("<|open|>think<|sep|>", "<|close|>think<|sep|>", by_rendering=True),  # Kimi K3
    ReasoningTags("<|channel|>analysis<|message|>", "<|end|>", by_rendering=True),  # gpt-oss
    ReasoningTags("to=self<|message|>", "<|eom|>", by_rendering=True),  # Muse
)


def tags_in(template: str, rendered: str = "") -> tuple[ReasoningTags, ...]:
    """The reasoning tags that a template mentions, or writes in what it ``rendered``."""
    return tuple(
        tags
        for tags in _KNOWN
        if (tags.close in template and not tags.by_rendering) or tags.open in rendered
    )


def opened_by(prompt: str, tags: tuple[ReasoningTags, ...]) -> ReasoningTags | None:
    """The tags that a rendered prompt has opened at its very end, if any.

    Templates that always want reasoning write the opening tag themselves; the answer then begins
    inside the reasoning.
    """
    end = prompt.rstrip(WHITESPACE)
    return next((pair for pair in tags if end.endswith(pair.open)), None)

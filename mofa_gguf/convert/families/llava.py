"""The text part of LLaVA: a Llama or a Mistral."""

from __future__ import annotations

from mofa_gguf.convert.checkpoint import Checkpoint
from mofa_gguf.convert.families import register
from mofa_gguf.convert.families.llama import Llama
from mofa_gguf.convert.families.text_part import TextPart

_KINDS = ("llama", "mistral")


@register("LlavaForConditionalGeneration", "LlavaNextForConditionalGeneration")
class Llava(TextPart, Llama):
    """The language model of a checkpoint that sees too."""

    def __init__(self, checkpoint: Checkpoint, source_architecture: str) -> None:
        super().__init__(checkpoint, source_architecture)
        kind = self.config.string("model_type", default="llama")
        if kind not in _KINDS:
            raise self.config.fail(
                "model_type", f"must be one of {', '.join(_KINDS)}, not {kind!r:.40}"
            )

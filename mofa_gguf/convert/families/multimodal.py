"""The text parts of checkpoints whose language model is an ordinary one, told by its model_type."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from mofa_gguf.convert.checkpoint import Checkpoint
from mofa_gguf.convert.families import register
from mofa_gguf.convert.families.base import Family
from mofa_gguf.convert.families.cohere2 import Cohere2
from mofa_gguf.convert.families.lfm2 import Lfm2
from mofa_gguf.convert.families.llama import Llama
from mofa_gguf.convert.families.qwen2 import Qwen2
from mofa_gguf.convert.families.qwen3 import Qwen3
from mofa_gguf.convert.families.text_part import TextPart


@register(
    "AyaVisionForConditionalGeneration",
    "Cohere2VisionForConditionalGeneration",
    "Idefics3ForConditionalGeneration",
    "InternVLForConditionalGeneration",
    "Lfm2VlForConditionalGeneration",
    "LlavaForConditionalGeneration",
    "LlavaNextForConditionalGeneration",
    "LlavaOnevisionForConditionalGeneration",
    "SmolVLMForConditionalGeneration",
    "VoxtralForConditionalGeneration",
)
class Multimodal(TextPart, Llama):
    """LLaVA, SmolVLM, InternVL, Voxtral and their kind; a Llama or Mistral unless it says else."""

    @classmethod
    def chosen(cls, checkpoint: Checkpoint) -> type[Family]:
        """By the language model's type."""
        text = checkpoint.config.section("text_config")
        kind = text.string("model_type", default="llama") if text is not None else "llama"
        if kind not in _BY_TYPE:
            assert text is not None
            known = ", ".join(sorted(_BY_TYPE))
            raise checkpoint.config.fail(
                "text_config.model_type", f"must be one of {known}, not {kind!r:.40}"
            )
        return _BY_TYPE[kind]


class _Qwen2(TextPart, Qwen2):
    """A Qwen 2 behind pictures."""


class _Qwen3(TextPart, Qwen3):
    """A Qwen 3 behind pictures."""


class _Cohere2(TextPart, Cohere2):
    """A Command R7B behind pictures."""


class _Lfm2(TextPart, Lfm2):
    """An LFM2 behind pictures."""

    skip: ClassVar[Mapping[str, str]] = {**Lfm2.skip, **TextPart.skip}


_BY_TYPE: Mapping[str, type[Family]] = {
    "cohere2": _Cohere2,
    "lfm2": _Lfm2,
    "llama": Multimodal,
    "mistral": Multimodal,
    "qwen2": _Qwen2,
    "qwen3": _Qwen3,
}

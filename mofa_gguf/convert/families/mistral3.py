"""The text part of Mistral Small 3.1 and 3.2, a Mistral, and of Ministral 3."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from mofa_gguf.convert.checkpoint import Checkpoint
from mofa_gguf.convert.families import register
from mofa_gguf.convert.families.base import Family
from mofa_gguf.convert.families.llama import Llama
from mofa_gguf.convert.families.ministral3 import MultimodalMinistral3
from mofa_gguf.convert.families.text_part import TextPart


@register("Mistral3ForConditionalGeneration")
class MultimodalMistral3(TextPart, Llama):
    """The language model of a checkpoint that sees too."""

    defaults: ClassVar[Mapping[str, object]] = {
        "vocab_size": 32_000,
        "hidden_size": 4096,
        "intermediate_size": 14_336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "max_position_embeddings": 131_072,
    }

    @classmethod
    def chosen(cls, checkpoint: Checkpoint) -> type[Family]:
        """Ministral 3 is stored under the same class."""
        text = checkpoint.config.section("text_config")
        kind = text.values.get("model_type") if text is not None else None
        return MultimodalMinistral3 if kind == "ministral3" else cls

    def __init__(self, checkpoint: Checkpoint, source_architecture: str) -> None:
        super().__init__(checkpoint, source_architecture)
        kind = self.config.string("model_type", default="mistral")
        if kind != "mistral":
            raise self.config.fail(
                "model_type", f"must be 'mistral'; {kind!r:.40} is another architecture"
            )

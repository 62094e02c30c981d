"""Ministral 3: a Mistral whose queries grow as texts do. llama.cpp: src/models/mistral3.cpp."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from mofa_gguf.convert.families import register
from mofa_gguf.convert.families.base import Dimensions
from mofa_gguf.convert.families.llama import Llama
from mofa_gguf.convert.families.text_part import TextPart
from mofa_gguf.convert.metadata import Metadata


@register("Ministral3ForCausalLM")
class Ministral3(Llama):
    """Every so many tokens (the context before it was stretched) the queries' scale rises."""

    architecture = "mistral3"
    takes_frequency_factors = takes_longrope = False
    defaults: ClassVar[Mapping[str, object]] = {
        "head_dim": 128,
        "max_position_embeddings": 262_144,
        "rope_scaling": {
            "rope_type": "yarn",
            "factor": 16.0,
            "original_max_position_embeddings": 16_384,
            "mscale": 1.0,
            "mscale_all_dim": 1.0,
            "llama_4_scaling_beta": 0.1,
        },
        "rope_theta": 1_000_000.0,
    }
    default_epsilon = 1e-5

    def hyperparameters(self, metadata: Metadata, dimensions: Dimensions) -> None:
        """Llama's keys and how fast the scale rises."""
        super().hyperparameters(metadata, dimensions)
        rope = self.rope
        beta = rope.settings.number("llama_4_scaling_beta", default=0.0, minimum=0.0)
        if beta == 0.0:
            return
        if self.key("rope.scaling.original_context_length") not in metadata:
            raise rope.settings.fail(
                "llama_4_scaling_beta", "needs a yarn rope with beta_fast 32 and beta_slow 1"
            )
        metadata.float32(self.key("attention.temperature_scale"), beta)


class MultimodalMinistral3(TextPart, Ministral3):
    """The language model of a checkpoint that sees too (see mistral3.py)."""

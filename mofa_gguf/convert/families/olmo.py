"""OLMo. llama.cpp: src/models/olmo.cpp."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from mofa_gguf.convert.families import register
from mofa_gguf.convert.families.base import Dimensions, Rule
from mofa_gguf.convert.families.decoder import EMBEDDINGS, GATED_MLP, HEAD, Decoder
from mofa_gguf.convert.families.parts import attention
from mofa_gguf.convert.metadata import Metadata


@register("OlmoForCausalLM")
class Olmo(Decoder):
    """Llama with norms that have no weights, and clipped queries, keys and values."""

    architecture = "olmo"
    fixed: ClassVar[Mapping[str, object]] = {"attention_bias": False}
    centred_norms = head_dim_is_width_by_heads = True
    epsilon_names = ("layer_norm_eps",)
    default_epsilon = 1e-5
    rules = (
        *EMBEDDINGS,
        *attention(paired=True),
        *GATED_MLP,
        Rule(HEAD, "output.weight", ("vocab", "embd"), optional=True),
    )

    def hyperparameters(self, metadata: Metadata, dimensions: Dimensions) -> None:
        """The decoder's keys and the clipping."""
        super().hyperparameters(metadata, dimensions)
        if "clip_qkv" in self.config:
            limit = self.config.number("clip_qkv", minimum=1e-6)
            metadata.float32(self.key("attention.clamp_kqv"), limit)

    def is_70b(self, dimensions: Dimensions) -> bool:
        """80 layers."""
        return dimensions["layers"] == 80

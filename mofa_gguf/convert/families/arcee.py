"""Arcee's AFM. llama.cpp: src/models/arcee.cpp."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from mofa_gguf.convert.families import register
from mofa_gguf.convert.families.base import Dimensions
from mofa_gguf.convert.families.decoder import EMBEDDINGS, GATED_MLP, OUTPUT, TWO_NORMS, Decoder
from mofa_gguf.convert.families.parts import attention
from mofa_gguf.convert.metadata import Metadata


@register("ArceeForCausalLM")
class Arcee(Decoder):
    """Llama with a squared ReLU instead of gates."""

    architecture = "arcee"
    activations = ("relu2",)
    default_epsilon = 1e-5
    takes_frequency_factors = True
    fixed: ClassVar[Mapping[str, object]] = {"attention_bias": False, "mlp_bias": False}
    rules = (*EMBEDDINGS, *TWO_NORMS, *attention(paired=True), *GATED_MLP[1:], *OUTPUT)

    def hyperparameters(self, metadata: Metadata, dimensions: Dimensions) -> None:
        """The decoder's keys, the vocabulary's size and the rotated part of a head: all of it."""
        super().hyperparameters(metadata, dimensions)
        metadata.uint32(self.key("rope.dimension_count"), dimensions["head_dim"])
        metadata.uint32(self.key("vocab_size"), dimensions["vocab"])

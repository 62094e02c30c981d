"""Granite 3. llama.cpp: src/models/granite.cpp."""

from __future__ import annotations

from mofa_gguf.convert.families import register
from mofa_gguf.convert.families.base import Dimensions
from mofa_gguf.convert.families.decoder import EMBEDDINGS, GATED_MLP, OUTPUT, TWO_NORMS, Decoder
from mofa_gguf.convert.families.parts import LAYER, attention, bias, qkv_biases
from mofa_gguf.convert.metadata import Metadata

_SCALES = {
    "attention_multiplier": "attention.scale",
    "embedding_multiplier": "embedding_scale",
    "residual_multiplier": "residual_scale",
    "logits_scaling": "logit_scale",
}


@register("GraniteForCausalLM")
class Granite(Decoder):
    """Llama with four scales."""

    architecture = "granite"
    takes_frequency_factors = takes_longrope = True
    rules = (
        *EMBEDDINGS,
        *TWO_NORMS,
        *attention(paired=True),
        *qkv_biases(paired=True, flag="attention_bias"),
        bias(f"{LAYER}.self_attn.o_proj", "blk.{i}.attn_output", "embd", flag="attention_bias"),
        *GATED_MLP,
        bias(f"{LAYER}.mlp.gate_proj", "blk.{i}.ffn_gate", "ff", flag="mlp_bias"),
        bias(f"{LAYER}.mlp.up_proj", "blk.{i}.ffn_up", "ff", flag="mlp_bias"),
        bias(f"{LAYER}.mlp.down_proj", "blk.{i}.ffn_down", "embd", flag="mlp_bias"),
        *OUTPUT,
    )

    def hyperparameters(self, metadata: Metadata, dimensions: Dimensions) -> None:
        """The decoder's keys, the rotated part of a head (all of it), and the scales."""
        super().hyperparameters(metadata, dimensions)
        metadata.uint32(self.key("rope.dimension_count"), dimensions["head_dim"])
        metadata.uint32(self.key("vocab_size"), dimensions["vocab"])
        for name, key in _SCALES.items():
            # To llama.cpp a scale of zero means that there is none.
            scale = self.config.number(name, default=1.0, minimum=1e-9)
            metadata.float32(self.key(key), scale)

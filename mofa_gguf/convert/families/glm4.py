"""GLM 4. llama.cpp: src/models/glm4.cpp; its rope rotates neighbours as transformers does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from mofa_gguf.convert.families import register
from mofa_gguf.convert.families.base import Dimensions, Rule
from mofa_gguf.convert.families.decoder import EMBEDDINGS, OUTPUT, Decoder
from mofa_gguf.convert.families.parts import LAYER, attention, matrix, norm, qkv_biases


@register("Glm4ForCausalLM")
class Glm4(Decoder):
    """Four norms a layer, a partly rotated head, and fused gates."""

    architecture = "glm4"
    defaults: ClassVar[Mapping[str, object]] = {
        "head_dim": 128,
        "num_key_value_heads": 2,
        "partial_rotary_factor": 0.5,
        "attention_bias": True,
        "max_position_embeddings": 131_072,
    }
    default_epsilon = 0.00000015625
    partly_rotated = True
    rules = (
        *EMBEDDINGS,
        *norm(f"{LAYER}.input_layernorm", "blk.{i}.attn_norm"),
        *attention(),
        *qkv_biases(flag="attention_bias"),
        *norm(f"{LAYER}.post_self_attn_layernorm", "blk.{i}.post_attention_norm"),
        *norm(f"{LAYER}.post_attention_layernorm", "blk.{i}.ffn_norm"),
        Rule(f"{LAYER}.mlp.gate_up_proj.weight", "blk.{i}.ffn_up.weight", ("two_ff", "embd")),
        matrix(f"{LAYER}.mlp.down_proj", "blk.{i}.ffn_down", "embd", "ff"),
        *norm(f"{LAYER}.post_mlp_layernorm", "blk.{i}.post_ffw_norm"),
        *OUTPUT,
    )

    def dimensions(self) -> Dimensions:
        """The decoder's, and that of the fused gates."""
        sizes = super().dimensions()
        return {**sizes, "two_ff": 2 * sizes["ff"]}

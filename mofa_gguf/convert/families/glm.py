"""GLM 4 of 2024 (glm-4-9b-hf), GLM Edge. llama.cpp: src/models/chatglm.cpp."""

from __future__ import annotations

from mofa_gguf.convert.families import register
from mofa_gguf.convert.families.base import Rule
from mofa_gguf.convert.families.decoder import EMBEDDINGS, OUTPUT, TWO_NORMS
from mofa_gguf.convert.families.glm4 import Glm4
from mofa_gguf.convert.families.parts import LAYER, attention, matrix, qkv_biases


@register("GlmForCausalLM")
class Glm(Glm4):
    """Like its successor, with two norms a layer."""

    architecture = "chatglm"
    head_dim_is_width_by_heads = True
    rules = (
        *EMBEDDINGS,
        *TWO_NORMS,
        *attention(),
        *qkv_biases(flag="attention_bias"),
        Rule(f"{LAYER}.mlp.gate_up_proj.weight", "blk.{i}.ffn_up.weight", ("two_ff", "embd")),
        matrix(f"{LAYER}.mlp.down_proj", "blk.{i}.ffn_down", "embd", "ff"),
        *OUTPUT,
    )

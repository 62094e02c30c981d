"""OLMoE. llama.cpp: src/models/olmoe.cpp; its rope takes rows as they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from mofa_gguf.convert.families import register
from mofa_gguf.convert.families.decoder import EMBEDDINGS, OUTPUT, TWO_NORMS
from mofa_gguf.convert.families.experts import ExpertDecoder, fused_experts, single_experts
from mofa_gguf.convert.families.parts import LAYER, attention, matrix, norm

_MLP = f"{LAYER}.mlp"


@register("OlmoeForCausalLM")
class Olmoe(ExpertDecoder):
    """Norms over all heads' queries and keys together; every layer has experts."""

    architecture = "olmoe"
    width_keys = ("intermediate_size",)
    demands_head = True
    head_dim_is_width_by_heads = True
    default_epsilon = 1e-5
    defaults: ClassVar[Mapping[str, object]] = {
        "max_position_embeddings": 4096,
        "num_experts": 64,
        "num_experts_per_tok": 8,
    }
    fixed: ClassVar[Mapping[str, object]] = {
        "attention_bias": False,
        "clip_qkv": None,
        "norm_topk_prob": False,
    }
    rules = (
        *EMBEDDINGS,
        *TWO_NORMS,
        *attention(),
        *norm(f"{LAYER}.self_attn.q_norm", "blk.{i}.attn_q_norm", "q"),
        # llama.cpp's loader wants as many keys as queries; so have the published models.
        *norm(f"{LAYER}.self_attn.k_norm", "blk.{i}.attn_k_norm", "q"),
        matrix(f"{_MLP}.gate", "blk.{i}.ffn_gate_inp", "experts", "embd"),
        *single_experts(_MLP),
        *fused_experts(f"{_MLP}.experts.gate_up_proj", f"{_MLP}.experts.down_proj"),
        *OUTPUT,
    )

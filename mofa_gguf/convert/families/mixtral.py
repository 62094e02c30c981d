"""Mixtral 8x7B, 8x22B and their kind: Llama with experts. llama.cpp: src/models/llama.cpp."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from mofa_gguf.convert.families import register
from mofa_gguf.convert.families.base import Dimensions, Rule
from mofa_gguf.convert.families.experts import ExpertDecoder, fused_experts, single_experts
from mofa_gguf.convert.families.llama import Llama

_BLOCK = "model.layers.{i}.block_sparse_moe"


@register("MixtralForCausalLM")
class Mixtral(ExpertDecoder, Llama):
    """Llama's attention, experts in place of its feed-forward part."""

    width_keys = ("intermediate_size",)
    defaults: ClassVar[Mapping[str, object]] = {
        "max_position_embeddings": 131_072,
        "num_experts_per_tok": 2,
        "num_key_value_heads": 8,
        "num_local_experts": 8,
        "rms_norm_eps": 1e-5,
        "rope_theta": 1_000_000.0,
    }
    fused_name = f"{_BLOCK}.experts.gate_up_proj"
    rules = (
        *(rule for rule in Llama.rules if ".mlp." not in rule.source),
        Rule(f"{_BLOCK}.gate.weight", "blk.{i}.ffn_gate_inp.weight", ("experts", "embd")),
        *single_experts(_BLOCK, "w1", "w3", "w2"),
        *fused_experts(f"{_BLOCK}.experts.gate_up_proj", f"{_BLOCK}.experts.down_proj"),
    )

    def canonical(self, name: str) -> str:
        """With the name that the part with the experts has in files; transformers 5 renamed it."""
        return super().canonical(name).replace(".mlp.", ".block_sparse_moe.")

    def is_70b(self, dimensions: Dimensions) -> bool:
        """As for Llama, but never with eight experts."""
        return dimensions["experts"] != 8 and super().is_70b(dimensions)

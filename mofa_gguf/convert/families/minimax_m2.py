"""MiniMax M2. llama.cpp: src/models/minimax-m2.cpp."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from mofa_gguf.convert.checkpoint import Checkpoint
from mofa_gguf.convert.families import register
from mofa_gguf.convert.families.base import Dimensions
from mofa_gguf.convert.families.decoder import EMBEDDINGS, OUTPUT, TWO_NORMS
from mofa_gguf.convert.families.experts import ExpertDecoder, fused_experts, single_experts
from mofa_gguf.convert.families.parts import LAYER, attention, norm
from mofa_gguf.convert.families.routed import ROUTED, SIGMOID, router
from mofa_gguf.convert.metadata import Metadata

_BLOCK = f"{LAYER}.block_sparse_moe"


@register("MiniMaxM2ForCausalLM")
class MiniMaxM2(ExpertDecoder):
    """Norms over all queries and all keys; a part of each head rotated."""

    architecture = "minimax-m2"
    partly_rotated = demands_head = True
    width_keys = ("intermediate_size",)
    fused_name = f"{_BLOCK}.experts.gate_up_proj"
    defaults: ClassVar[Mapping[str, object]] = {
        "head_dim": 128,
        "max_position_embeddings": 196_608,
        "num_experts_per_tok": 8,
        "num_key_value_heads": 8,
        "num_local_experts": 256,
        "rope_theta": 5_000_000.0,
    }
    fixed: ClassVar[Mapping[str, object]] = {
        "qk_norm_type": "per_layer",
        "scoring_func": "sigmoid",
        "use_qk_norm": True,
        "use_routing_bias": True,
    }
    skip: ClassVar[Mapping[str, str]] = {
        **ExpertDecoder.skip,
        "model.mtp*": "predicts further tokens, which generating text does not need",
    }
    rules = (
        *EMBEDDINGS,
        *TWO_NORMS,
        *attention(),
        *norm(f"{LAYER}.self_attn.q_norm", "blk.{i}.attn_q_norm", "q"),
        *norm(f"{LAYER}.self_attn.k_norm", "blk.{i}.attn_k_norm", "kv"),
        *router(f"{_BLOCK}.gate", f"{_BLOCK}.e_score_correction_bias", demanded=True),
        *single_experts(_BLOCK, "w1", "w3", "w2"),
        *fused_experts(f"{_BLOCK}.experts.gate_up_proj", f"{_BLOCK}.experts.down_proj"),
        *OUTPUT,
    )

    def __init__(self, checkpoint: Checkpoint, source_architecture: str) -> None:
        super().__init__(checkpoint, source_architecture)
        if "rotary_dim" in self.config:
            part = self.config.integer("rotary_dim") / self.config.integer("head_dim")
            self.config.values = {**self.config.values, "partial_rotary_factor": part}

    def canonical(self, name: str) -> str:
        """With the name that the part with the experts has in files; transformers 5 renamed it."""
        return super().canonical(name).replace(".mlp.", ".block_sparse_moe.")

    def kinds(self, layer: int | None) -> tuple[str, ...]:
        """Experts in every layer."""
        return (ROUTED, *super().kinds(layer))

    def hyperparameters(self, metadata: Metadata, dimensions: Dimensions) -> None:
        """The keys of experts."""
        super().hyperparameters(metadata, dimensions)
        metadata.uint32(self.key("expert_feed_forward_length"), dimensions["ff_exp"])
        metadata.uint32(self.key("expert_gating_func"), SIGMOID)

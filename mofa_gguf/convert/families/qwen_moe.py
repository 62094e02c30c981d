"""Qwen's models with experts: Qwen1.5-MoE and Qwen2-57B-A14B, Qwen3-30B-A3B and its kind.

llama.cpp: src/models/qwen2moe.cpp, src/models/qwen3moe.cpp. Every layer has experts there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from mofa_gguf.convert.families import register
from mofa_gguf.convert.families.base import MAX_WIDTH, Dimensions, Rule
from mofa_gguf.convert.families.decoder import EMBEDDINGS, OUTPUT, TWO_NORMS
from mofa_gguf.convert.families.experts import ExpertDecoder, fused_experts, single_experts
from mofa_gguf.convert.families.parts import LAYER, attention, matrix, norm
from mofa_gguf.convert.metadata import Metadata

_ATTENTION, _MLP = f"{LAYER}.self_attn", f"{LAYER}.mlp"
_EXPERTS = (
    matrix(f"{_MLP}.gate", "blk.{i}.ffn_gate_inp", "experts", "embd"),
    *single_experts(_MLP),
    *fused_experts(f"{_MLP}.experts.gate_up_proj", f"{_MLP}.experts.down_proj"),
)
SHARED_EXPERT = (
    *_EXPERTS,
    matrix(f"{_MLP}.shared_expert_gate", "blk.{i}.ffn_gate_inp_shexp", "one", "embd"),
    matrix(f"{_MLP}.shared_expert.gate_proj", "blk.{i}.ffn_gate_shexp", "ff_shared", "embd"),
    matrix(f"{_MLP}.shared_expert.up_proj", "blk.{i}.ffn_up_shexp", "ff_shared", "embd"),
    matrix(f"{_MLP}.shared_expert.down_proj", "blk.{i}.ffn_down_shexp", "embd", "ff_shared"),
)
_BIASED = "biased"


class QwenExperts(ExpertDecoder):
    """What all have: no layer without experts, no window."""

    fixed: ClassVar[Mapping[str, object]] = {"decoder_sparse_step": 1, "mlp_only_layers": []}

    def hyperparameters(self, metadata: Metadata, dimensions: Dimensions) -> None:
        """The experts' width too."""
        super().hyperparameters(metadata, dimensions)
        metadata.uint32(self.key("expert_feed_forward_length"), dimensions["ff_exp"])
        if self.config.boolean("use_sliding_window", default=False):
            self.warn_of_window()


class QwenSharedExpert(QwenExperts):
    """An expert that every token goes through as well, with a gate of its own."""

    def dimensions(self) -> Dimensions:
        """The shared expert's width too."""
        width = self.config.integer("shared_expert_intermediate_size", maximum=MAX_WIDTH)
        return {**super().dimensions(), "ff_shared": width, "one": 1}

    def hyperparameters(self, metadata: Metadata, dimensions: Dimensions) -> None:
        """The shared expert's width too."""
        super().hyperparameters(metadata, dimensions)
        metadata.uint32(self.key("expert_shared_feed_forward_length"), dimensions["ff_shared"])


@register("Qwen2MoeForCausalLM")
class Qwen2Moe(QwenSharedExpert):
    """Biases on queries, keys and values."""

    architecture = "qwen2moe"
    demands_head = True
    head_dim_is_width_by_heads = True
    defaults: ClassVar[Mapping[str, object]] = {
        "max_position_embeddings": 32_768,
        "moe_intermediate_size": 1408,
        "num_experts": 60,
        "num_experts_per_tok": 4,
        "num_key_value_heads": 16,
        "shared_expert_intermediate_size": 5632,
    }
    fixed: ClassVar[Mapping[str, object]] = {**QwenExperts.fixed, "norm_topk_prob": False}
    rules = (
        *EMBEDDINGS,
        *TWO_NORMS,
        *attention(),
        Rule(f"{_ATTENTION}.q_proj.bias", "blk.{i}.attn_q.bias", ("q",), kind=_BIASED),
        Rule(f"{_ATTENTION}.k_proj.bias", "blk.{i}.attn_k.bias", ("kv",), kind=_BIASED),
        Rule(f"{_ATTENTION}.v_proj.bias", "blk.{i}.attn_v.bias", ("kv",), kind=_BIASED),
        *SHARED_EXPERT,
        *OUTPUT,
    )

    def kinds(self, layer: int | None) -> tuple[str, ...]:
        """How experts are stored, and whether there are biases."""
        biased = self.config.boolean("qkv_bias", default=True)
        return (*super().kinds(layer), *([_BIASED] if biased else []))


@register("Qwen3MoeForCausalLM")
class Qwen3Moe(QwenExperts):
    """Norms on queries and keys; heads of any size."""

    architecture = "qwen3moe"
    defaults: ClassVar[Mapping[str, object]] = {
        "max_position_embeddings": 32_768,
        "moe_intermediate_size": 768,
        "num_experts": 128,
        "num_experts_per_tok": 8,
        "num_key_value_heads": 4,
    }
    fixed: ClassVar[Mapping[str, object]] = {**QwenExperts.fixed, "attention_bias": False}
    rules = (
        *EMBEDDINGS,
        *TWO_NORMS,
        *attention(),
        *norm(f"{_ATTENTION}.q_norm", "blk.{i}.attn_q_norm", "head_dim"),
        *norm(f"{_ATTENTION}.k_norm", "blk.{i}.attn_k_norm", "head_dim"),
        *_EXPERTS,
        *OUTPUT,
    )

    def hyperparameters(self, metadata: Metadata, dimensions: Dimensions) -> None:
        """The keys above; the weights of the experts used must add up to one."""
        super().hyperparameters(metadata, dimensions)
        if not self.config.boolean("norm_topk_prob", default=False):
            raise self.config.fail("norm_topk_prob", "must be true for llama.cpp")

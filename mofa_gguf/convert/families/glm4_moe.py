"""GLM-4.5, 4.6 and 4.7, with experts. llama.cpp: src/models/glm4-moe.cpp.

The Flash model of 4.7 has DeepSeek's attention and its architecture in llama.cpp.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from mofa_gguf.convert.families import register
from mofa_gguf.convert.families.base import Dimensions
from mofa_gguf.convert.families.decoder import EMBEDDINGS, OUTPUT
from mofa_gguf.convert.families.deepseek import DeepseekV3
from mofa_gguf.convert.families.experts import fused_experts, single_experts
from mofa_gguf.convert.families.layer_types import leading
from mofa_gguf.convert.families.parts import LAYER, attention, norm, qkv_biases
from mofa_gguf.convert.families.routed import (
    RoutedDecoder,
    dense_mlp,
    of_kind,
    router,
    shared_experts,
)
from mofa_gguf.convert.metadata import Metadata

_ATTENTION, _MLP = f"{LAYER}.self_attn", f"{LAYER}.mlp"
_NORMED = "norms of queries and keys"


@register("Glm4MoeForCausalLM")
class Glm4Moe(RoutedDecoder):
    """Half of each head rotated; norms of queries and keys in the largest."""

    architecture = "glm4moe"
    partly_rotated = True
    default_epsilon = 1e-5
    defaults: ClassVar[Mapping[str, object]] = {
        "first_k_dense_replace": 1,
        "max_position_embeddings": 131_072,
        "moe_intermediate_size": 1408,
        "n_routed_experts": 128,
        "num_experts_per_tok": 8,
        "num_key_value_heads": 8,
        "partial_rotary_factor": 0.5,
    }
    rules = (
        *EMBEDDINGS,
        *norm(f"{LAYER}.input_layernorm", "blk.{i}.attn_norm"),
        *attention(),
        *qkv_biases(flag="attention_bias"),
        *of_kind(
            _NORMED,
            *norm(f"{_ATTENTION}.q_norm", "blk.{i}.attn_q_norm", "head_dim"),
            *norm(f"{_ATTENTION}.k_norm", "blk.{i}.attn_k_norm", "head_dim"),
        ),
        *norm(f"{LAYER}.post_attention_layernorm", "blk.{i}.post_attention_norm"),
        *dense_mlp(),
        *router(demanded=True),
        *shared_experts(),
        *single_experts(_MLP),
        *fused_experts(f"{_MLP}.experts.gate_up_proj", f"{_MLP}.experts.down_proj"),
        *OUTPUT,
    )

    def kinds(self, layer: int | None) -> tuple[str, ...]:
        """What follows the attention, and whether there are the norms."""
        normed = self.config.boolean("use_qk_norm", default=False)
        return (*super().kinds(layer), *([_NORMED] if normed else []))

    def hyperparameters(self, metadata: Metadata, dimensions: Dimensions) -> None:
        """The keys of such experts."""
        super().hyperparameters(metadata, dimensions)
        self.write_normalized(metadata, default=True)


@register("Glm4MoeLiteForCausalLM")
class Glm4MoeLite(DeepseekV3):
    """DeepSeek V3 in all but its sizes and how config.json tells which layers are dense."""

    default_epsilon = 1e-5
    defaults: ClassVar[Mapping[str, object]] = {
        **DeepseekV3.defaults,
        "first_k_dense_replace": 1,
        "head_dim": 64,
        "kv_lora_rank": 512,
        "max_position_embeddings": 202_752,
        "moe_intermediate_size": 1536,
        "n_group": 1,
        "n_routed_experts": 64,
        "num_experts_per_tok": 4,
        "q_lora_rank": 768,
        "qk_nope_head_dim": 192,
        "routed_scaling_factor": 1.8,
        "topk_group": 1,
        "v_head_dim": 256,
    }

    def n_dense(self, n_layers: int) -> int:
        """From ``mlp_layer_types``, where it is there."""
        if "mlp_layer_types" not in self.config:
            return super().n_dense(n_layers)
        return leading(self.config, "mlp_layer_types", n_layers, first="dense", then="sparse")

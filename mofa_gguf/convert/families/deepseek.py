"""DeepSeek V2, V2.5, V3 and R1: latent attention, experts. llama.cpp: src/models/deepseek2.cpp.

llama.cpp's attention works on the latent vectors themselves, one key-value head for all: the
matrix that turns them into keys and values is split by head, the keys' part transposed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

import numpy as np

from mofa_gguf.convert.families import register
from mofa_gguf.convert.families.base import MAX_WIDTH, Dimensions, Rule, Traits
from mofa_gguf.convert.families.decoder import EMBEDDINGS, OUTPUT, TWO_NORMS
from mofa_gguf.convert.families.epsilons import share_epsilon
from mofa_gguf.convert.families.parts import LAYER, matrix, norm
from mofa_gguf.convert.families.routed import (
    ROUTED_MLP,
    SOFTMAX,
    RoutedDecoder,
    of_kind,
)
from mofa_gguf.convert.metadata import Metadata
from mofa_gguf.convert.weights import Weights, rows_of_each, transposed

_ATTENTION = f"{LAYER}.self_attn"
_LATENT_QUERY, _PLAIN_QUERY = "queries in two steps", "queries in one step"
_LATENT_DEFAULTS: Mapping[str, object] = {
    "kv_lora_rank": 512,
    "q_lora_rank": 1536,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
}
# Numbers of layers at which llama.cpp expects queries in one step (is_lite in deepseek2.cpp).
_LITE_LAYERS = (26, 27)
_LATENT_EPSILON = 1e-6
"""Of the norms of latent vectors, whatever config.json says."""


def _by_head(weights: Weights, dimensions: Dimensions) -> Weights:
    n_rows = dimensions["key_plain"] + dimensions["value"]
    return replace(weights, shape=(dimensions["heads"], n_rows, weights.shape[-1]))


def _keys(weights: Weights, dimensions: Dimensions) -> Weights:
    rows = np.arange(dimensions["key_plain"])
    return transposed(rows_of_each(_by_head(weights, dimensions), rows))


def _values(weights: Weights, dimensions: Dimensions) -> Weights:
    rows = np.arange(dimensions["value"]) + dimensions["key_plain"]
    return rows_of_each(_by_head(weights, dimensions), rows)


class _Deepseek(RoutedDecoder):
    """What both have: all but the routing."""

    architecture = "deepseek2"
    fixed: ClassVar[Mapping[str, object]] = {
        "attention_bias": False,
        "mlp_bias": False,
        "moe_layer_freq": 1,
        "rope_interleave": True,
    }
    rules = (
        *EMBEDDINGS,
        *TWO_NORMS,
        *of_kind(_PLAIN_QUERY, matrix(f"{_ATTENTION}.q_proj", "blk.{i}.attn_q", "q", "embd")),
        *of_kind(
            _LATENT_QUERY,
            matrix(f"{_ATTENTION}.q_a_proj", "blk.{i}.attn_q_a", "query_latent", "embd"),
            *norm(f"{_ATTENTION}.q_a_layernorm", "blk.{i}.attn_q_a_norm", "query_latent"),
            matrix(f"{_ATTENTION}.q_b_proj", "blk.{i}.attn_q_b", "q", "query_latent"),
        ),
        matrix(f"{_ATTENTION}.kv_a_proj_with_mqa", "blk.{i}.attn_kv_a_mqa", "latent_key", "embd"),
        *norm(f"{_ATTENTION}.kv_a_layernorm", "blk.{i}.attn_kv_a_norm", "latent"),
        Rule(
            f"{_ATTENTION}.kv_b_proj.weight",
            "blk.{i}.attn_k_b.weight",
            ("keys_values", "latent"),
            _keys,
        ),
        Rule(
            f"{_ATTENTION}.kv_b_proj.weight",
            "blk.{i}.attn_v_b.weight",
            ("keys_values", "latent"),
            _values,
        ),
        matrix(f"{_ATTENTION}.o_proj", "blk.{i}.attn_output", "embd", "values"),
        *ROUTED_MLP,
        *OUTPUT,
    )

    def dimensions(self) -> Dimensions:
        """The decoder's and the experts', and those of the latent attention."""
        config = self.config
        sizes = dict(super().dimensions())
        heads = sizes["heads"]
        rotated = config.integer("qk_rope_head_dim", maximum=MAX_WIDTH)
        if rotated % 2:
            raise config.fail("qk_rope_head_dim", f"must be even, not {rotated}")
        plain = config.integer("qk_nope_head_dim", maximum=MAX_WIDTH)
        value = config.integer("v_head_dim", maximum=MAX_WIDTH)
        latent = config.integer("kv_lora_rank", maximum=MAX_WIDTH)
        sizes |= {
            "rotated": rotated,
            "key_plain": plain,
            "value": value,
            "q": heads * (plain + rotated),
            "values": heads * value,
            "keys_values": heads * (plain + value),
            "latent": latent,
            "latent_key": latent + rotated,
            "query_latent": config.integer("q_lora_rank", default=0, maximum=MAX_WIDTH),
        }
        return sizes

    def kinds(self, layer: int | None) -> tuple[str, ...]:
        """How queries are made, and what follows the attention."""
        query = _LATENT_QUERY if "q_lora_rank" in self.config else _PLAIN_QUERY
        return (query, *super().kinds(layer))

    def hyperparameters(self, metadata: Metadata, dimensions: Dimensions) -> None:
        """The keys of latent attention; those of the decoder where they fit it."""
        super().hyperparameters(metadata, dimensions)
        latent, rotated = dimensions["latent"], dimensions["rotated"]
        metadata.uint32(self.key("vocab_size"), dimensions["vocab"])
        metadata.uint32(self.key("attention.head_count_kv"), 1)
        metadata.uint32(self.key("attention.key_length"), latent + rotated)
        metadata.uint32(self.key("attention.value_length"), latent)
        metadata.uint32(self.key("attention.key_length_mla"), dimensions["key_plain"] + rotated)
        metadata.uint32(self.key("attention.value_length_mla"), dimensions["value"])
        metadata.uint32(self.key("attention.kv_lora_rank"), latent)
        metadata.uint32(self.key("rope.dimension_count"), rotated)
        self._query_keys(metadata, dimensions)
        self._yarn_keys(metadata)
        share_epsilon(self, _LATENT_EPSILON)

    def _query_keys(self, metadata: Metadata, dimensions: Dimensions) -> None:
        n_layers, n_vocab = dimensions["layers"], dimensions["vocab"]
        is_lite = n_layers in _LITE_LAYERS or (n_layers == 48 and n_vocab == 128256)
        if dimensions["query_latent"] and is_lite:
            raise self.config.fail(
                "q_lora_rank", f"must be null: llama.cpp knows no other model of {n_layers} layers"
            )
        if not is_lite:
            # 0 stands for queries in one step; for those models the key must be there.
            metadata.uint32(self.key("attention.q_lora_rank"), dimensions["query_latent"])

    def _yarn_keys(self, metadata: Metadata) -> None:
        """YaRN's factors: one for the rotated part of a head, one for the whole.

        llama.cpp derives the second from ``yarn_log_multiplier`` (ten times too small in the file,
        as its converter writes it) and can only leave the first at 1.
        """
        rope = self.rope
        if rope.kind == "linear":
            # llama.cpp takes YaRN's factor of the scores for whatever is stretched.
            raise rope.settings.fail("rope_type", "must be default or yarn for llama.cpp")
        if rope.kind != "yarn":
            return
        if not math.isclose(rope.attention_factor, 1.0, rel_tol=1e-6):
            raise self.config.fail(
                "rope_scaling", "must have equal mscale and mscale_all_dim for llama.cpp"
            )
        over_all = rope.settings.number("mscale_all_dim", default=0.0)
        if over_all:
            metadata.float32(self.key("rope.scaling.yarn_log_multiplier"), 0.1 * over_all)
            metadata.float32(self.key("rope.scaling.attn_factor"), 1.0)

    def traits(self, dimensions: Dimensions) -> Traits:
        """All heads share the latent one."""
        return replace(super().traits(dimensions), n_gqa=dimensions["heads"])


@register("DeepseekV2ForCausalLM")
class DeepseekV2(_Deepseek):
    """Routing by softmax, the weights as they are."""

    gating = SOFTMAX
    defaults: ClassVar[Mapping[str, object]] = {
        **_LATENT_DEFAULTS,
        "moe_intermediate_size": 1407,
        "n_routed_experts": 64,
        "n_shared_experts": 2,
    }
    fixed: ClassVar[Mapping[str, object]] = {
        **_Deepseek.fixed,
        "norm_topk_prob": False,
        "scoring_func": "softmax",
    }

    def group_keys(self, metadata: Metadata, dimensions: Dimensions) -> None:
        """Groups only where the checkpoint's routing looks at them."""
        if self.config.string("topk_method", default="greedy") == "greedy":
            return
        super().group_keys(metadata, dimensions)
        if metadata.get(self.key("expert_group_count")) is not None:
            self.warnings.append(
                "the checkpoint ranks groups of experts by their best one and llama.cpp by their "
                "best two: some tokens go to other experts"
            )


@register("DeepseekV3ForCausalLM")
class DeepseekV3(_Deepseek):
    """Routing by sigmoid, with a correction for each expert that counts for the choice only."""

    defaults: ClassVar[Mapping[str, object]] = {
        **_LATENT_DEFAULTS,
        "first_k_dense_replace": 3,
        "max_position_embeddings": 4096,
        "moe_intermediate_size": 2048,
        "n_group": 8,
        "n_routed_experts": 256,
        "n_shared_experts": 1,
        "num_experts_per_tok": 8,
        "routed_scaling_factor": 2.5,
        "topk_group": 4,
    }
    fixed: ClassVar[Mapping[str, object]] = {**_Deepseek.fixed, "scoring_func": "sigmoid"}

    def hyperparameters(self, metadata: Metadata, dimensions: Dimensions) -> None:
        """Whether the weights of the experts used are made to add up to one."""
        super().hyperparameters(metadata, dimensions)
        self.write_normalized(metadata, default=True)

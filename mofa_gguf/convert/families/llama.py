"""Llama and what shares its shape: Llama 1 to 3.3, TinyLlama, SmolLM2, Yi, Mistral.

llama.cpp: src/models/llama.cpp. Its rope rotates neighbouring rows, so queries and keys are
reordered (:func:`~.decoder.paired_rotation`).
"""

from __future__ import annotations

from typing import ClassVar

from mofa_gguf.convert.families import register
from mofa_gguf.convert.families.base import Dimensions, Rule
from mofa_gguf.convert.families.decoder import (
    EMBEDDINGS,
    GATED_MLP,
    OUTPUT,
    TWO_NORMS,
    Decoder,
    paired_rotation,
)
from mofa_gguf.convert.metadata import Metadata

_ATTENTION = "model.layers.{i}.self_attn"
_MLP = "model.layers.{i}.mlp"
_QUERY, _KEY = paired_rotation("heads"), paired_rotation("kv_heads")


@register("LlamaForCausalLM", "LLaMAForCausalLM", "MistralForCausalLM")
class Llama(Decoder):
    """Pre-norm decoder with gated feed-forward; biases where the configuration has them."""

    architecture = "llama"
    takes_frequency_factors = True
    takes_longrope = True
    rules: ClassVar[tuple[Rule, ...]] = (
        *EMBEDDINGS,
        *TWO_NORMS,
        Rule(f"{_ATTENTION}.q_proj.weight", "blk.{i}.attn_q.weight", ("q", "embd"), _QUERY),
        Rule(f"{_ATTENTION}.k_proj.weight", "blk.{i}.attn_k.weight", ("kv", "embd"), _KEY),
        Rule(f"{_ATTENTION}.v_proj.weight", "blk.{i}.attn_v.weight", ("kv", "embd")),
        Rule(f"{_ATTENTION}.o_proj.weight", "blk.{i}.attn_output.weight", ("embd", "q")),
        Rule(f"{_ATTENTION}.q_proj.bias", "blk.{i}.attn_q.bias", ("q",), _QUERY, "attention_bias"),
        Rule(f"{_ATTENTION}.k_proj.bias", "blk.{i}.attn_k.bias", ("kv",), _KEY, "attention_bias"),
        Rule(f"{_ATTENTION}.v_proj.bias", "blk.{i}.attn_v.bias", ("kv",), None, "attention_bias"),
        Rule(
            f"{_ATTENTION}.o_proj.bias",
            "blk.{i}.attn_output.bias",
            ("embd",),
            None,
            "attention_bias",
        ),
        *GATED_MLP,
        Rule(f"{_MLP}.gate_proj.bias", "blk.{i}.ffn_gate.bias", ("ff",), None, "mlp_bias"),
        Rule(f"{_MLP}.up_proj.bias", "blk.{i}.ffn_up.bias", ("ff",), None, "mlp_bias"),
        Rule(f"{_MLP}.down_proj.bias", "blk.{i}.ffn_down.bias", ("embd",), None, "mlp_bias"),
        *OUTPUT,
    )

    def hyperparameters(self, metadata: Metadata, dimensions: Dimensions) -> None:
        """The decoder's keys, the vocabulary's size, and the rotated part of a head: all of it."""
        super().hyperparameters(metadata, dimensions)
        metadata.uint32(self.key("rope.dimension_count"), dimensions["head_dim"])
        metadata.uint32(self.key("vocab_size"), dimensions["vocab"])
        self.warn_of_window()

    def is_70b(self, dimensions: Dimensions) -> bool:
        """80 layers with grouped queries."""
        return dimensions["layers"] == 80 and dimensions["heads"] != dimensions["kv_heads"]

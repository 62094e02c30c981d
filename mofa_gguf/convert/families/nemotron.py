"""Nemotron 4 and Minitron. llama.cpp: src/models/nemotron.cpp.

transformers multiplies by one plus a norm's weight, llama.cpp by what the file holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

from mofa_gguf.convert.families import register
from mofa_gguf.convert.families.base import Rule
from mofa_gguf.convert.families.decoder import EMBEDDINGS, GATED_MLP, HEAD, Decoder
from mofa_gguf.convert.families.gemma import one_plus
from mofa_gguf.convert.families.parts import LAYER, attention, layer_norm


def _offset_norm(source: str, target: str) -> tuple[Rule, Rule]:
    weight, bias = layer_norm(source, target)
    return replace(weight, transform=one_plus), bias


@register("NemotronForCausalLM")
class Nemotron(Decoder):
    """A squared ReLU instead of gates, and heads that are rotated in part."""

    architecture = "nemotron"
    defaults: ClassVar[Mapping[str, object]] = {"partial_rotary_factor": 0.5}
    activations = ("relu2",)
    fixed: ClassVar[Mapping[str, object]] = {"attention_bias": False, "mlp_bias": False}
    centred_norms = partly_rotated = demands_head = head_dim_is_width_by_heads = True
    epsilon_names = ("norm_eps",)
    default_epsilon = 1e-5
    rules = (
        *EMBEDDINGS,
        *_offset_norm(f"{LAYER}.input_layernorm", "blk.{i}.attn_norm"),
        *attention(),
        *_offset_norm(f"{LAYER}.post_attention_layernorm", "blk.{i}.ffn_norm"),
        *GATED_MLP[1:],
        *_offset_norm("model.norm", "output_norm"),
        Rule(HEAD, "output.weight", ("vocab", "embd"), optional=True),
    )

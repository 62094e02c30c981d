"""Phi 1, 1.5 and 2. llama.cpp: src/models/phi2.cpp."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from mofa_gguf.convert.families import register
from mofa_gguf.convert.families.base import Rule
from mofa_gguf.convert.families.decoder import EMBEDDINGS, Decoder
from mofa_gguf.convert.families.parts import LAYER, attention, bias, layer_norm, linear, qkv_biases


@register("PhiForCausalLM")
class Phi(Decoder):
    """Attention and feed-forward side by side after one norm; biases everywhere."""

    architecture = "phi2"
    defaults: ClassVar[Mapping[str, object]] = {"partial_rotary_factor": 0.5}
    activations = ("gelu_new", "gelu_pytorch_tanh")
    fixed: ClassVar[Mapping[str, object]] = {"qk_layernorm": False}
    centred_norms = partly_rotated = demands_head = head_dim_is_width_by_heads = True
    epsilon_names = ("layer_norm_eps",)
    default_epsilon = 1e-5
    rules = (
        *EMBEDDINGS,
        *layer_norm(f"{LAYER}.input_layernorm", "blk.{i}.attn_norm"),
        *attention(output="dense"),
        *qkv_biases(),
        bias(f"{LAYER}.self_attn.dense", "blk.{i}.attn_output", "embd"),
        *linear(f"{LAYER}.mlp.fc1", "blk.{i}.ffn_up", "ff", "embd"),
        *linear(f"{LAYER}.mlp.fc2", "blk.{i}.ffn_down", "embd", "ff"),
        *layer_norm("model.final_layernorm", "output_norm"),
        Rule("lm_head.weight", "output.weight", ("vocab", "embd"), optional=True),
        bias("lm_head", "output", "vocab"),
    )

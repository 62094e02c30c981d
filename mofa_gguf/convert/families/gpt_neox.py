"""GPT-NeoX and Pythia. llama.cpp: src/models/gptneox.cpp."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from mofa_gguf.convert.families import register
from mofa_gguf.convert.families.base import Dimensions, Rule
from mofa_gguf.convert.families.decoder import Decoder
from mofa_gguf.convert.families.fused_heads import fused_bias, fused_weight, with_fused
from mofa_gguf.convert.families.parts import layer_norm, linear
from mofa_gguf.convert.metadata import Metadata

_LAYER = "layers.{i}"


@register("GPTNeoXForCausalLM")
class GptNeoX(Decoder):
    """Attention and feed-forward side by side or not, norms that shift too, biases everywhere."""

    architecture = "gptneox"
    prefixes = ("gpt_neox.",)
    renamed: ClassVar[Mapping[str, str]] = {
        "rotary_pct": "partial_rotary_factor",
        "rotary_emb_base": "rope_theta",
    }
    defaults: ClassVar[Mapping[str, object]] = {"partial_rotary_factor": 0.25}
    # llama.cpp has the approximation only; it differs from the exact gelu by less than 0.0005.
    activations = ("gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh")
    fixed: ClassVar[Mapping[str, object]] = {"attention_bias": True}
    shares_keys = False
    centred_norms = partly_rotated = demands_head = head_dim_is_width_by_heads = True
    epsilon_names = ("layer_norm_eps",)
    default_epsilon = 1e-5
    embedding = "embed_in.weight"
    head = "embed_out.weight"
    rules = (
        Rule("embed_in.weight", "token_embd.weight", ("vocab", "embd")),
        *layer_norm(f"{_LAYER}.input_layernorm", "blk.{i}.attn_norm"),
        fused_weight(f"{_LAYER}.attention.query_key_value"),
        fused_bias(f"{_LAYER}.attention.query_key_value"),
        *linear(f"{_LAYER}.attention.dense", "blk.{i}.attn_output", "embd", "embd"),
        *layer_norm(f"{_LAYER}.post_attention_layernorm", "blk.{i}.ffn_norm"),
        *linear(f"{_LAYER}.mlp.dense_h_to_4h", "blk.{i}.ffn_up", "ff", "embd"),
        *linear(f"{_LAYER}.mlp.dense_4h_to_h", "blk.{i}.ffn_down", "embd", "ff"),
        *layer_norm("final_layer_norm", "output_norm"),
        Rule("embed_out.weight", "output.weight", ("vocab", "embd"), optional=True),
    )
    skip: ClassVar[Mapping[str, str]] = {
        "layers.*.attention.bias": "llama.cpp makes the causal mask itself",
        "layers.*.attention.masked_bias": "llama.cpp makes the causal mask itself",
        "layers.*.attention.rotary_emb.inv_freq": "llama.cpp computes the frequencies",
    }

    def dimensions(self) -> Dimensions:
        """The decoder's and the fused matrix's."""
        return with_fused(super().dimensions())

    def hyperparameters(self, metadata: Metadata, dimensions: Dimensions) -> None:
        """The decoder's keys, and whether the two halves of a layer are side by side."""
        super().hyperparameters(metadata, dimensions)
        parallel = self.config.boolean("use_parallel_residual", default=True)
        metadata.boolean(self.key("use_parallel_residual"), parallel)

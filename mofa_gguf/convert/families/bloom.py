"""BLOOM. llama.cpp: src/models/bloom.cpp; positions are biases of the attention (ALiBi)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from mofa_gguf.convert.families import register
from mofa_gguf.convert.families.base import Dimensions, Rule
from mofa_gguf.convert.families.decoder import HEAD, Decoder
from mofa_gguf.convert.families.fused_heads import fused_bias, fused_weight, with_fused
from mofa_gguf.convert.families.parts import layer_norm, linear

_LAYER = "h.{i}"


@register("BloomForCausalLM")
class Bloom(Decoder):
    """No positions in the vectors, a norm over the embeddings, biases everywhere."""

    architecture = "bloom"
    prefixes = ("transformer.",)
    renamed: ClassVar[Mapping[str, str]] = {
        "n_embed": "hidden_size",
        "n_layer": "num_hidden_layers",
        "n_head": "num_attention_heads",
        "seq_length": "max_position_embeddings",
    }
    activations = ("gelu",)
    fixed: ClassVar[Mapping[str, object]] = {"apply_residual_connection_post_layernorm": False}
    rotary = shares_keys = False
    inner_widths = 4
    centred_norms = tied_by_default = True
    epsilon_names = ("layer_norm_epsilon",)
    default_epsilon = 1e-5
    embedding = "word_embeddings.weight"
    rules = (
        Rule("word_embeddings.weight", "token_embd.weight", ("vocab", "embd")),
        *layer_norm("word_embeddings_layernorm", "token_embd_norm"),
        *layer_norm(f"{_LAYER}.input_layernorm", "blk.{i}.attn_norm"),
        fused_weight(f"{_LAYER}.self_attention.query_key_value"),
        fused_bias(f"{_LAYER}.self_attention.query_key_value"),
        *linear(f"{_LAYER}.self_attention.dense", "blk.{i}.attn_output", "embd", "embd"),
        *layer_norm(f"{_LAYER}.post_attention_layernorm", "blk.{i}.ffn_norm"),
        *linear(f"{_LAYER}.mlp.dense_h_to_4h", "blk.{i}.ffn_up", "ff", "embd"),
        *linear(f"{_LAYER}.mlp.dense_4h_to_h", "blk.{i}.ffn_down", "embd", "ff"),
        *layer_norm("ln_f", "output_norm"),
        Rule(HEAD, "output.weight", ("vocab", "embd"), optional=True),
    )

    def dimensions(self) -> Dimensions:
        """The decoder's and the fused matrix's; the feed-forward is four times as wide."""
        sizes = super().dimensions()
        return with_fused({**sizes, "ff": 4 * sizes["embd"]})

"""StarCoder 2. llama.cpp: src/models/starcoder2.cpp."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from mofa_gguf.convert.families import register
from mofa_gguf.convert.families.base import Dimensions, Rule
from mofa_gguf.convert.families.decoder import EMBEDDINGS, HEAD, Decoder
from mofa_gguf.convert.families.parts import LAYER, attention, bias, layer_norm, linear, qkv_biases
from mofa_gguf.convert.metadata import Metadata


@register("Starcoder2ForCausalLM")
class Starcoder2(Decoder):
    """Norms that shift too, biases everywhere and a feed-forward without gate."""

    architecture = "starcoder2"
    defaults: ClassVar[Mapping[str, object]] = {
        "max_position_embeddings": 4096,
        "num_key_value_heads": 2,
    }
    activations = ("gelu_pytorch_tanh", "gelu_new")
    fixed: ClassVar[Mapping[str, object]] = {"use_bias": True}
    centred_norms = tied_by_default = head_dim_is_width_by_heads = True
    epsilon_names = ("norm_epsilon",)
    default_epsilon = 1e-5
    rules = (
        *EMBEDDINGS,
        *layer_norm(f"{LAYER}.input_layernorm", "blk.{i}.attn_norm"),
        *attention(),
        *qkv_biases(),
        bias(f"{LAYER}.self_attn.o_proj", "blk.{i}.attn_output", "embd"),
        *layer_norm(f"{LAYER}.post_attention_layernorm", "blk.{i}.ffn_norm"),
        *linear(f"{LAYER}.mlp.c_fc", "blk.{i}.ffn_up", "ff", "embd"),
        *linear(f"{LAYER}.mlp.c_proj", "blk.{i}.ffn_down", "embd", "ff"),
        *layer_norm("model.norm", "output_norm"),
        Rule(HEAD, "output.weight", ("vocab", "embd"), optional=True),
    )

    def hyperparameters(self, metadata: Metadata, dimensions: Dimensions) -> None:
        """The decoder's keys."""
        super().hyperparameters(metadata, dimensions)
        self.warn_of_window()

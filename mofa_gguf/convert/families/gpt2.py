"""GPT-2. llama.cpp: src/models/gpt2.cpp; its matrices are stored with inputs first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from mofa_gguf.convert.families import register
from mofa_gguf.convert.families.base import Dimensions, Rule
from mofa_gguf.convert.families.decoder import HEAD, Decoder
from mofa_gguf.convert.families.parts import bias, layer_norm
from mofa_gguf.convert.weights import Weights, transposed


def _turned(weights: Weights, dimensions: Dimensions) -> Weights:
    return transposed(weights)


def _conv1d(source: str, target: str, out: str, inn: str) -> tuple[Rule, Rule]:
    """A matrix of transformers' Conv1D, and its bias."""
    return (
        Rule(f"{source}.weight", f"{target}.weight", (inn, out), _turned),
        bias(source, target, out),
    )


@register("GPT2LMHeadModel")
class Gpt2(Decoder):
    """Learned positions, norms that shift too, biases everywhere."""

    architecture = "gpt2"
    prefixes = ("transformer.",)
    renamed: ClassVar[Mapping[str, str]] = {
        "n_embd": "hidden_size",
        "n_layer": "num_hidden_layers",
        "n_head": "num_attention_heads",
        "n_inner": "intermediate_size",
        "n_positions": "max_position_embeddings",
    }
    defaults: ClassVar[Mapping[str, object]] = {"max_position_embeddings": 1024}
    activations: ClassVar[tuple[str, ...]] = ("gelu_new", "gelu_pytorch_tanh")
    activation_names = ("activation_function",)
    fixed: ClassVar[Mapping[str, object]] = {
        "scale_attn_weights": True,
        "scale_attn_by_inverse_layer_idx": False,
        "add_cross_attention": False,
    }
    rotary = shares_keys = False
    inner_widths = 4
    centred_norms = tied_by_default = True
    epsilon_names = ("layer_norm_epsilon",)
    default_epsilon = 1e-5
    embedding = "wte.weight"
    rules = (
        Rule("wte.weight", "token_embd.weight", ("vocab", "embd")),
        Rule("wpe.weight", "position_embd.weight", ("positions", "embd")),
        *layer_norm("h.{i}.ln_1", "blk.{i}.attn_norm"),
        *_conv1d("h.{i}.attn.c_attn", "blk.{i}.attn_qkv", "qkv", "embd"),
        *_conv1d("h.{i}.attn.c_proj", "blk.{i}.attn_output", "embd", "embd"),
        *layer_norm("h.{i}.ln_2", "blk.{i}.ffn_norm"),
        *_conv1d("h.{i}.mlp.c_fc", "blk.{i}.ffn_up", "ff", "embd"),
        *_conv1d("h.{i}.mlp.c_proj", "blk.{i}.ffn_down", "embd", "ff"),
        *layer_norm("ln_f", "output_norm"),
        Rule(HEAD, "output.weight", ("vocab", "embd"), optional=True),
    )
    skip: ClassVar[Mapping[str, str]] = {
        "h.*.attn.bias": "llama.cpp makes the causal mask itself",
        "h.*.attn.masked_bias": "llama.cpp makes the causal mask itself",
    }

    def dimensions(self) -> Dimensions:
        """The decoder's, the fused matrix's and the number of positions."""
        sizes = super().dimensions()
        return {**sizes, "qkv": 3 * sizes["embd"], "positions": self.n_context}

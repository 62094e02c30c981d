"""StarCoder and SantaCoder. llama.cpp: src/models/starcoder.cpp."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from mofa_gguf.convert.families import register
from mofa_gguf.convert.families.base import Dimensions, Rule
from mofa_gguf.convert.families.decoder import HEAD
from mofa_gguf.convert.families.gpt2 import Gpt2
from mofa_gguf.convert.families.parts import layer_norm, linear


@register("GPTBigCodeForCausalLM")
class GptBigCode(Gpt2):
    """GPT-2 with one key and one value for all queries."""

    architecture = "starcoder"
    activations = ("gelu_pytorch_tanh", "gelu", "gelu_new")
    fixed: ClassVar[Mapping[str, object]] = {
        "scale_attn_weights": True,
        "add_cross_attention": False,
        "multi_query": True,
    }
    rules = (
        Rule("wte.weight", "token_embd.weight", ("vocab", "embd")),
        Rule("wpe.weight", "position_embd.weight", ("positions", "embd")),
        *layer_norm("h.{i}.ln_1", "blk.{i}.attn_norm"),
        *linear("h.{i}.attn.c_attn", "blk.{i}.attn_qkv", "qkv", "embd"),
        *linear("h.{i}.attn.c_proj", "blk.{i}.attn_output", "embd", "embd"),
        *layer_norm("h.{i}.ln_2", "blk.{i}.ffn_norm"),
        *linear("h.{i}.mlp.c_fc", "blk.{i}.ffn_up", "ff", "embd"),
        *linear("h.{i}.mlp.c_proj", "blk.{i}.ffn_down", "embd", "ff"),
        *layer_norm("ln_f", "output_norm"),
        Rule(HEAD, "output.weight", ("vocab", "embd"), optional=True),
    )

    def n_kv_heads(self, heads: int) -> int:
        """One for all."""
        return 1

    def dimensions(self) -> Dimensions:
        """GPT-2's, with the narrower fused matrix."""
        sizes = super().dimensions()
        return {**sizes, "qkv": sizes["q"] + 2 * sizes["kv"]}

"""MPT. llama.cpp: src/models/mpt.cpp; what is further away counts less (ALiBi)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from mofa_gguf.convert.config import Config
from mofa_gguf.convert.families import register
from mofa_gguf.convert.families.base import Dimensions, Rule
from mofa_gguf.convert.families.decoder import HEAD, Decoder
from mofa_gguf.convert.families.fused_heads import with_fused
from mofa_gguf.convert.families.parts import matrix, norm
from mofa_gguf.convert.metadata import Metadata

_LAYER = "blocks.{i}"


@register("MptForCausalLM", "MPTForCausalLM")
class Mpt(Decoder):
    """No positions in the vectors, no biases, norms that subtract the mean."""

    architecture = "mpt"
    prefixes = ("transformer.",)
    renamed: ClassVar[Mapping[str, str]] = {
        "d_model": "hidden_size",
        "n_layers": "num_hidden_layers",
        "n_heads": "num_attention_heads",
        "max_seq_len": "max_position_embeddings",
    }
    fixed: ClassVar[Mapping[str, object]] = {
        "no_bias": True,
        "expansion_ratio": 4,
        "logit_scale": None,
    }
    rotary = shares_keys = False
    inner_widths = 4
    centred_norms = tied_by_default = head_dim_is_width_by_heads = True
    epsilon_names = ("layer_norm_epsilon",)
    default_epsilon = 1e-5
    embedding = "wte.weight"
    rules = (
        Rule("wte.weight", "token_embd.weight", ("vocab", "embd")),
        *norm(f"{_LAYER}.norm_1", "blk.{i}.attn_norm"),
        matrix(f"{_LAYER}.attn.Wqkv", "blk.{i}.attn_qkv", "qkv", "embd"),
        matrix(f"{_LAYER}.attn.out_proj", "blk.{i}.attn_output", "embd", "embd"),
        *norm(f"{_LAYER}.norm_2", "blk.{i}.ffn_norm"),
        matrix(f"{_LAYER}.ffn.up_proj", "blk.{i}.ffn_up", "ff", "embd"),
        matrix(f"{_LAYER}.ffn.down_proj", "blk.{i}.ffn_down", "embd", "ff"),
        *norm("norm_f", "output_norm"),
        Rule(HEAD, "output.weight", ("vocab", "embd"), optional=True),
    )

    def dimensions(self) -> Dimensions:
        """The decoder's and the fused matrix's; the feed-forward is four times as wide."""
        sizes = super().dimensions()
        return with_fused({**sizes, "ff": 4 * sizes["embd"]})

    def hyperparameters(self, metadata: Metadata, dimensions: Dimensions) -> None:
        """The decoder's keys, the clipping and the bias by distance."""
        super().hyperparameters(metadata, dimensions)
        attention = self.config.section("attn_config") or Config({}, self.config.path)
        # What transformers computes with, whatever the file says of it, is left out here.
        for name, value in (("softmax_scale", None), ("qk_ln", False), ("alibi", True)):
            if attention.values.get(name, value) != value:
                raise attention.fail(name, f"must be {value} for llama.cpp and transformers")
        if "clip_qkv" in attention:
            limit = attention.number("clip_qkv", minimum=1e-6)
            metadata.float32(self.key("attention.clamp_kqv"), limit)
        most = attention.number("alibi_bias_max", default=8.0, minimum=1e-6)
        metadata.float32(self.key("attention.max_alibi_bias"), most)

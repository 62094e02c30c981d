"""Falcon. llama.cpp: src/models/falcon.cpp."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

from mofa_gguf.convert.families import register
from mofa_gguf.convert.families.base import Dimensions, Rule
from mofa_gguf.convert.families.decoder import HEAD, Decoder
from mofa_gguf.convert.families.fused_heads import fused_weight, with_fused
from mofa_gguf.convert.families.parts import layer_norm, matrix

_LAYER = "h.{i}"
_ONE_NORM, _TWO_NORMS = "one norm", "two norms"


@register("FalconForCausalLM")
class Falcon(Decoder):
    """Attention and feed-forward side by side, with a norm for both or for each."""

    architecture = "falcon"
    prefixes = ("transformer.",)
    renamed: ClassVar[Mapping[str, str]] = {
        "n_layer": "num_hidden_layers",
        "n_head": "num_attention_heads",
        "n_head_kv": "num_kv_heads",
        "n_embed": "hidden_size",
        "ffn_hidden_size": "intermediate_size",
    }
    activations = ("gelu", "gelu_new", "gelu_pytorch_tanh")
    activation_names = ("activation",)
    fixed: ClassVar[Mapping[str, object]] = {"alibi": False, "bias": False, "parallel_attn": True}
    centred_norms = tied_by_default = head_dim_is_width_by_heads = True
    inner_widths = 4
    epsilon_names = ("layer_norm_epsilon",)
    default_epsilon = 1e-5
    embedding = "word_embeddings.weight"
    rules = (
        Rule("word_embeddings.weight", "token_embd.weight", ("vocab", "embd")),
        *(
            replace(rule, kind=kind)
            for source, target, kind in (
                ("input_layernorm", "attn_norm", _ONE_NORM),
                ("ln_mlp", "attn_norm", _TWO_NORMS),
                ("ln_attn", "attn_norm_2", _TWO_NORMS),
            )
            for rule in layer_norm(f"{_LAYER}.{source}", f"blk.{{i}}.{target}")
        ),
        fused_weight(f"{_LAYER}.self_attention.query_key_value"),
        matrix(f"{_LAYER}.self_attention.dense", "blk.{i}.attn_output", "embd", "embd"),
        matrix(f"{_LAYER}.mlp.dense_h_to_4h", "blk.{i}.ffn_up", "ff", "embd"),
        matrix(f"{_LAYER}.mlp.dense_4h_to_h", "blk.{i}.ffn_down", "embd", "ff"),
        *layer_norm("ln_f", "output_norm"),
        Rule(HEAD, "output.weight", ("vocab", "embd"), optional=True),
    )
    skip: ClassVar[Mapping[str, str]] = {
        "h.*.self_attention.rotary_emb.inv_freq": "llama.cpp computes the frequencies",
    }

    @property
    def _is_new(self) -> bool:
        return self.config.boolean("new_decoder_architecture", default=False)

    def n_kv_heads(self, heads: int) -> int:
        """One for all queries, some in the newer models."""
        if self._is_new:
            return self.config.integer("num_kv_heads", default=heads, maximum=heads)
        return 1 if self.config.boolean("multi_query", default=True) else heads

    def dimensions(self) -> Dimensions:
        """The decoder's and the fused matrix's."""
        return with_fused(super().dimensions())

    def kinds(self, layer: int | None) -> tuple[str, ...]:
        """Whether attention and feed-forward have each their norm."""
        norms = self.config.integer("num_ln_in_parallel_attn", default=2 if self._is_new else 1)
        return (_TWO_NORMS if self._is_new and norms == 2 else _ONE_NORM,)

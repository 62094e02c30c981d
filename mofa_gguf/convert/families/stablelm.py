"""StableLM. llama.cpp: src/models/stablelm.cpp."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

from mofa_gguf.convert.families import register
from mofa_gguf.convert.families.base import Dimensions, Rule
from mofa_gguf.convert.families.decoder import EMBEDDINGS, GATED_MLP, HEAD, Decoder
from mofa_gguf.convert.families.parts import LAYER, attention, layer_norm, qkv_biases
from mofa_gguf.convert.metadata import Metadata

_SEQUENTIAL = "sequential"


@register("StableLmForCausalLM", "StableLMEpochForCausalLM")
class StableLm(Decoder):
    """Norms that shift too, and a partly rotated head.

    The largest has norms for each head, and attention and feed-forward side by side.
    """

    architecture = "stablelm"
    defaults: ClassVar[Mapping[str, object]] = {
        "partial_rotary_factor": 0.25,
        "max_position_embeddings": 4096,
    }
    renamed: ClassVar[Mapping[str, str]] = {"rope_pct": "partial_rotary_factor"}
    centred_norms = partly_rotated = demands_head = head_dim_is_width_by_heads = True
    epsilon_names = ("layer_norm_eps", "norm_eps")
    default_epsilon = 1e-5
    rules = (
        *EMBEDDINGS,
        *layer_norm(f"{LAYER}.input_layernorm", "blk.{i}.attn_norm"),
        *attention(),
        *qkv_biases(flag="use_qkv_bias"),
        *(
            Rule(
                f"{LAYER}.self_attn.{part}_layernorm.norms.{{e}}.weight",
                f"blk.{{i}}.attn_{part}_norm.weight",
                ("head_dim",),
                flag="qk_layernorm",
                stack=heads,
            )
            for part, heads in (("q", "heads"), ("k", "kv_heads"))
        ),
        *(
            replace(rule, kind=_SEQUENTIAL)
            for rule in layer_norm(f"{LAYER}.post_attention_layernorm", "blk.{i}.ffn_norm")
        ),
        *GATED_MLP,
        *layer_norm("model.norm", "output_norm"),
        Rule(HEAD, "output.weight", ("vocab", "embd"), optional=True),
    )

    def kinds(self, layer: int | None) -> tuple[str, ...]:
        """Whether the feed-forward comes after the attention."""
        parallel = self.config.boolean("use_parallel_residual", default=False)
        return () if parallel else (_SEQUENTIAL,)

    def hyperparameters(self, metadata: Metadata, dimensions: Dimensions) -> None:
        """The decoder's keys; llama.cpp sees by the second norm whether parts are parallel."""
        super().hyperparameters(metadata, dimensions)
        parallel = self.config.boolean("use_parallel_residual", default=False)
        metadata.boolean(self.key("use_parallel_residual"), parallel)

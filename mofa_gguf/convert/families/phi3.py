"""Phi 3, 3.5 and 4. llama.cpp: src/models/phi3.cpp; fused matrices stay as they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

from mofa_gguf.convert.families import register
from mofa_gguf.convert.families.base import Dimensions, Rule
from mofa_gguf.convert.families.decoder import EMBEDDINGS, OUTPUT, TWO_NORMS, Decoder
from mofa_gguf.convert.families.parts import LAYER, matrix
from mofa_gguf.convert.families.rope import Rope
from mofa_gguf.convert.metadata import Metadata


@register("Phi3ForCausalLM")
class Phi3(Decoder):
    """Fused queries, keys and values, fused gates, and LongRoPE for the long contexts."""

    architecture = "phi3"
    defaults: ClassVar[Mapping[str, object]] = {
        "original_max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5,
    }
    fixed: ClassVar[Mapping[str, object]] = {"attention_bias": False}
    partly_rotated = takes_longrope = head_dim_is_width_by_heads = True
    rules = (
        *EMBEDDINGS,
        *TWO_NORMS,
        Rule(f"{LAYER}.self_attn.qkv_proj.weight", "blk.{i}.attn_qkv.weight", ("qkv", "embd")),
        matrix(f"{LAYER}.self_attn.o_proj", "blk.{i}.attn_output", "embd", "q"),
        Rule(f"{LAYER}.mlp.gate_up_proj.weight", "blk.{i}.ffn_up.weight", ("two_ff", "embd")),
        matrix(f"{LAYER}.mlp.down_proj", "blk.{i}.ffn_down", "embd", "ff"),
        *OUTPUT,
    )

    @property
    def rope(self) -> Rope:
        """The first checkpoints called their LongRoPE yarn; transformers never took it for that."""
        rope = super().rope
        return replace(rope, kind="longrope") if rope.kind == "yarn" else rope

    def dimensions(self) -> Dimensions:
        """The decoder's, and those of the fused matrices."""
        sizes = super().dimensions()
        return {**sizes, "qkv": sizes["q"] + 2 * sizes["kv"], "two_ff": 2 * sizes["ff"]}

    def hyperparameters(self, metadata: Metadata, dimensions: Dimensions) -> None:
        """The decoder's keys, and the window, which llama.cpp reads and ignores."""
        super().hyperparameters(metadata, dimensions)
        self.warn_of_window()
        window = self.config.integer("sliding_window", default=0)
        metadata.uint32(self.key("attention.sliding_window"), window)

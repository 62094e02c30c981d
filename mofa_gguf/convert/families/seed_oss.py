"""Seed-OSS. llama.cpp: src/models/seed-oss.cpp."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from mofa_gguf.convert.families import register
from mofa_gguf.convert.families.base import Dimensions
from mofa_gguf.convert.families.decoder import EMBEDDINGS, GATED_MLP, OUTPUT, Decoder
from mofa_gguf.convert.families.parts import LAYER, attention, norm, qkv_biases
from mofa_gguf.convert.metadata import Metadata


@register("SeedOssForCausalLM")
class SeedOss(Decoder):
    """Heads of any size, biases on queries, keys and values."""

    architecture = "seed_oss"
    defaults: ClassVar[Mapping[str, object]] = {
        "attention_bias": True,
        "head_dim": 128,
        "max_position_embeddings": 524_288,
    }
    fixed: ClassVar[Mapping[str, object]] = {"attention_out_bias": False, "mlp_bias": False}
    rules = (
        *EMBEDDINGS,
        *norm(f"{LAYER}.input_layernorm", "blk.{i}.attn_norm"),
        *attention(),
        *qkv_biases(flag="attention_bias"),
        *norm(f"{LAYER}.post_attention_layernorm", "blk.{i}.post_attention_norm"),
        *GATED_MLP,
        *OUTPUT,
    )

    def hyperparameters(self, metadata: Metadata, dimensions: Dimensions) -> None:
        """The decoder's keys, and the rotated part of a head: all of it."""
        super().hyperparameters(metadata, dimensions)
        metadata.uint32(self.key("rope.dimension_count"), dimensions["head_dim"])

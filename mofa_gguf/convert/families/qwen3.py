"""Qwen 3, and embedding models made of it. llama.cpp: src/models/qwen3.cpp; rope as it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from mofa_gguf.convert.families import register
from mofa_gguf.convert.families.base import Dimensions
from mofa_gguf.convert.families.decoder import EMBEDDINGS, GATED_MLP, OUTPUT, TWO_NORMS, Decoder
from mofa_gguf.convert.families.parts import LAYER, attention, norm
from mofa_gguf.convert.metadata import Metadata


@register("Qwen3ForCausalLM")
class Qwen3(Decoder):
    """Like Llama, with norms over each head's queries and keys."""

    architecture = "qwen3"
    defaults: ClassVar[Mapping[str, object]] = {"head_dim": 128}
    fixed: ClassVar[Mapping[str, object]] = {"attention_bias": False}
    rules = (
        *EMBEDDINGS,
        *TWO_NORMS,
        *attention(),
        *norm(f"{LAYER}.self_attn.q_norm", "blk.{i}.attn_q_norm", "head_dim"),
        *norm(f"{LAYER}.self_attn.k_norm", "blk.{i}.attn_k_norm", "head_dim"),
        *GATED_MLP,
        *OUTPUT,
    )

    def hyperparameters(self, metadata: Metadata, dimensions: Dimensions) -> None:
        """The decoder's keys."""
        super().hyperparameters(metadata, dimensions)
        if self.config.boolean("use_sliding_window", default=False):
            self.warn_of_window()

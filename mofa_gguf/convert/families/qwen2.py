"""Qwen 1.5, 2 and 2.5. llama.cpp: src/models/qwen2.cpp; its rope takes rows as they are."""

from __future__ import annotations

from mofa_gguf.convert.families import register
from mofa_gguf.convert.families.base import Dimensions, Rule
from mofa_gguf.convert.families.decoder import (
    EMBEDDINGS,
    GATED_MLP,
    OUTPUT,
    TWO_NORMS,
    Decoder,
)
from mofa_gguf.convert.metadata import Metadata

_ATTENTION = "model.layers.{i}.self_attn"


@register("Qwen2ForCausalLM")
class Qwen2(Decoder):
    """Like Llama, with biases on queries, keys and values."""

    architecture = "qwen2"
    rules = (
        *EMBEDDINGS,
        *TWO_NORMS,
        Rule(f"{_ATTENTION}.q_proj.weight", "blk.{i}.attn_q.weight", ("q", "embd")),
        Rule(f"{_ATTENTION}.q_proj.bias", "blk.{i}.attn_q.bias", ("q",)),
        Rule(f"{_ATTENTION}.k_proj.weight", "blk.{i}.attn_k.weight", ("kv", "embd")),
        Rule(f"{_ATTENTION}.k_proj.bias", "blk.{i}.attn_k.bias", ("kv",)),
        Rule(f"{_ATTENTION}.v_proj.weight", "blk.{i}.attn_v.weight", ("kv", "embd")),
        Rule(f"{_ATTENTION}.v_proj.bias", "blk.{i}.attn_v.bias", ("kv",)),
        Rule(f"{_ATTENTION}.o_proj.weight", "blk.{i}.attn_output.weight", ("embd", "q")),
        *GATED_MLP,
        *OUTPUT,
    )

    def dimensions(self) -> Dimensions:
        """The decoder's; llama.cpp takes the size of a head from the width for this family."""
        dimensions = super().dimensions()
        if dimensions["q"] != dimensions["embd"]:
            raise self.config.fail(
                "head_dim", "times the number of heads must be hidden_size for llama.cpp"
            )
        return dimensions

    def hyperparameters(self, metadata: Metadata, dimensions: Dimensions) -> None:
        """The decoder's keys."""
        super().hyperparameters(metadata, dimensions)
        if self.config.boolean("use_sliding_window", default=False):
            self.warnings.append(
                "some layers of the checkpoint attend to a sliding window and llama.cpp's to all "
                "tokens: texts longer than the window will come out differently"
            )

    def is_70b(self, dimensions: Dimensions) -> bool:
        """80 layers."""
        return dimensions["layers"] == 80

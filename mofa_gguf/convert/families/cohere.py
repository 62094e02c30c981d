"""Command R and R+, Aya. llama.cpp: src/models/command-r.cpp."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from mofa_gguf.convert.families import register
from mofa_gguf.convert.families.base import Dimensions, Rule
from mofa_gguf.convert.families.decoder import EMBEDDINGS, GATED_MLP, OUTPUT, Decoder
from mofa_gguf.convert.families.parts import LAYER, attention, norm
from mofa_gguf.convert.metadata import Metadata

_LAYERS_WITH_NORMS = 64
"""From so many layers on llama.cpp asks for norms of queries and keys, and below it knows none."""


class ParallelCohere(Decoder):
    """Attention and feed-forward side by side after one norm; the logits are scaled.

    The rope of transformers' Cohere rotates neighbours as llama.cpp's does.
    """

    fixed: ClassVar[Mapping[str, object]] = {"attention_bias": False}
    centred_norms = always_tied = tied_by_default = head_dim_is_width_by_heads = True
    epsilon_names = ("layer_norm_eps",)
    default_epsilon = 1e-5
    rules = (
        *EMBEDDINGS,
        *norm(f"{LAYER}.input_layernorm", "blk.{i}.attn_norm"),
        *attention(),
        *GATED_MLP,
        *OUTPUT,
    )

    def hyperparameters(self, metadata: Metadata, dimensions: Dimensions) -> None:
        """The decoder's keys and the scale."""
        super().hyperparameters(metadata, dimensions)
        scale = self.config.number("logit_scale", default=0.0625, minimum=1e-9)
        metadata.float32(self.key("logit_scale"), scale)

    def _skip(self, canonical: str, name: str) -> None:
        """Some checkpoints have biases that hold nothing but zeros."""
        if name.endswith(".bias") and not np.any(self.checkpoint.array(name)):
            self.skipped[name] = "all zeros"
        else:
            super()._skip(canonical, name)


@register("CohereForCausalLM")
class Cohere(ParallelCohere):
    """The largest has norms over each head's queries and keys."""

    architecture = "command-r"
    defaults: ClassVar[Mapping[str, object]] = {
        "max_position_embeddings": 8192,
        "rope_theta": 500_000.0,
    }
    rules = (
        *ParallelCohere.rules,
        Rule(
            f"{LAYER}.self_attn.q_norm.weight",
            "blk.{i}.attn_q_norm.weight",
            ("heads", "head_dim"),
            flag="use_qk_norm",
        ),
        Rule(
            f"{LAYER}.self_attn.k_norm.weight",
            "blk.{i}.attn_k_norm.weight",
            ("kv_heads", "head_dim"),
            flag="use_qk_norm",
        ),
    )

    @property
    def n_context(self) -> int:
        """The first models were trained for more than max_position_embeddings says."""
        return self.config.integer("model_max_length", default=super().n_context)

    def hyperparameters(self, metadata: Metadata, dimensions: Dimensions) -> None:
        """The family's keys."""
        super().hyperparameters(metadata, dimensions)
        has_norms = self.config.boolean("use_qk_norm", default=False)
        if has_norms != (dimensions["layers"] >= _LAYERS_WITH_NORMS):
            raise self.config.fail(
                "use_qk_norm",
                f"must be true for llama.cpp with {_LAYERS_WITH_NORMS} layers or more, "
                "and false with fewer",
            )

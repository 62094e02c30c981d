"""EXAONE 4. llama.cpp: src/models/exaone4.cpp."""

from __future__ import annotations

from typing import Any

from mofa_gguf.convert.families import register
from mofa_gguf.convert.families.base import Dimensions
from mofa_gguf.convert.families.decoder import EMBEDDINGS, GATED_MLP, OUTPUT, Decoder
from mofa_gguf.convert.families.parts import LAYER, attention, norm
from mofa_gguf.convert.metadata import Metadata

# What llama.cpp computes for so many layers, and for no other number.
_LAYERS_WITH_WINDOW, _WINDOW, _STEP = 64, 4096, 4
_SLIDING, _FULL = "sliding_attention", "full_attention"


@register("Exaone4ForCausalLM")
class Exaone4(Decoder):
    """Norms behind attention and feed-forward, and over each head's queries and keys.

    In the largest model three of four layers have a window, and the others no positions.
    """

    architecture = "exaone4"
    default_epsilon = 1e-5
    takes_frequency_factors = head_dim_is_width_by_heads = True
    rules = (
        *EMBEDDINGS,
        *attention(),
        *norm(f"{LAYER}.self_attn.q_norm", "blk.{i}.attn_q_norm", "head_dim"),
        *norm(f"{LAYER}.self_attn.k_norm", "blk.{i}.attn_k_norm", "head_dim"),
        *norm(f"{LAYER}.post_attention_layernorm", "blk.{i}.post_attention_norm"),
        *GATED_MLP,
        *norm(f"{LAYER}.post_feedforward_layernorm", "blk.{i}.post_ffw_norm"),
        *OUTPUT,
    )

    def hyperparameters(self, metadata: Metadata, dimensions: Dimensions) -> None:
        """The decoder's keys and the window."""
        super().hyperparameters(metadata, dimensions)
        found = self.config.values.get("sliding_window")
        expected = _WINDOW if dimensions["layers"] == _LAYERS_WITH_WINDOW else None
        if found != expected:
            raise self.config.fail(
                "sliding_window",
                f"must be {expected} for llama.cpp with {dimensions['layers']} layers",
            )
        if expected is not None:
            self._check_layers(dimensions["layers"])
            metadata.uint32(self.key("attention.sliding_window"), expected)

    def _check_layers(self, n_layers: int) -> None:
        pattern = [_FULL if (i + 1) % _STEP == 0 else _SLIDING for i in range(n_layers)]
        found: Any = self.config.values.get("layer_types", pattern)
        if found != pattern:
            raise self.config.fail(
                "layer_types", f"must have {_FULL} in every {_STEP}th layer for llama.cpp"
            )

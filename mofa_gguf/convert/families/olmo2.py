"""OLMo 2 and 3. llama.cpp: src/models/olmo2.cpp."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from mofa_gguf.convert.families import register
from mofa_gguf.convert.families.base import Dimensions
from mofa_gguf.convert.families.decoder import EMBEDDINGS, GATED_MLP, OUTPUT, Decoder
from mofa_gguf.convert.families.parts import LAYER, attention, norm
from mofa_gguf.convert.families.rope import Rope, read_rope
from mofa_gguf.convert.families.windows import sliding_layers, write_window
from mofa_gguf.convert.metadata import Metadata


@register("Olmo2ForCausalLM")
class Olmo2(Decoder):
    """Norms after attention and feed-forward, and over all queries and all keys."""

    architecture = "olmo2"
    fixed: ClassVar[Mapping[str, object]] = {"attention_bias": False}
    default_epsilon = 1e-5
    demands_head = head_dim_is_width_by_heads = True
    rules = (
        *EMBEDDINGS,
        *attention(),
        *norm(f"{LAYER}.self_attn.q_norm", "blk.{i}.attn_q_norm", "q"),
        *norm(f"{LAYER}.self_attn.k_norm", "blk.{i}.attn_k_norm", "kv"),
        *norm(f"{LAYER}.post_attention_layernorm", "blk.{i}.post_attention_norm"),
        *GATED_MLP,
        *norm(f"{LAYER}.post_feedforward_layernorm", "blk.{i}.post_ffw_norm"),
        *OUTPUT,
    )


_PERIOD = 4


@register("Olmo3ForCausalLM")
class Olmo3(Olmo2):
    """OLMo 2 with windows in most layers; a stretched rope in the others only."""

    defaults: ClassVar[Mapping[str, object]] = {"rope_theta": 500_000.0, "sliding_window": 4096}

    @property
    def rope(self) -> Rope:
        """The settings of the layers that attend to all tokens."""
        return read_rope(self.config, self.n_context, layers="full_attention")

    def hyperparameters(self, metadata: Metadata, dimensions: Dimensions) -> None:
        """The decoder's keys and the window's."""
        super().hyperparameters(metadata, dimensions)
        sliding = read_rope(self.config, self.n_context, layers="sliding_attention")
        by_kind = self.config.section("rope_parameters")
        stretched = by_kind is not None and sliding.kind != "default"
        if stretched or sliding.theta != self.rope.theta:
            raise self.config.fail(
                "rope_parameters",
                "must be default in layers with a window, with the theta of the others, "
                "for llama.cpp",
            )
        metadata.float32(self.key("rope.freq_base_swa"), sliding.theta)
        layers = sliding_layers(self.config, dimensions["layers"], period=_PERIOD)
        window = self.config.integer("sliding_window")
        write_window(metadata, self.architecture, window, layers, period=_PERIOD)

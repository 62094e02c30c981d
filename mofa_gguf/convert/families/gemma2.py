"""Gemma 2. llama.cpp: src/models/gemma2.cpp."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from mofa_gguf.convert.families import register
from mofa_gguf.convert.families.base import Dimensions
from mofa_gguf.convert.families.decoder import EMBEDDINGS, GATED_MLP, OUTPUT, Decoder
from mofa_gguf.convert.families.gemma import GEMMA_FIXED, offset_norms
from mofa_gguf.convert.families.parts import LAYER, attention, norm
from mofa_gguf.convert.families.windows import sliding_layers, write_window
from mofa_gguf.convert.metadata import Metadata

FOUR_NORMS = (
    *norm(f"{LAYER}.input_layernorm", "blk.{i}.attn_norm"),
    *norm(f"{LAYER}.post_attention_layernorm", "blk.{i}.post_attention_norm"),
    *norm(f"{LAYER}.pre_feedforward_layernorm", "blk.{i}.ffn_norm"),
    *norm(f"{LAYER}.post_feedforward_layernorm", "blk.{i}.post_ffw_norm"),
)
_NO_CAP = 1e6
"""A soft cap so high that nothing changes: llama.cpp has no other way to say that there is none."""


class WindowedGemma(Decoder):
    """What Gemma 2 and 3 share: norms after each part too, and windows."""

    activations = ("gelu_pytorch_tanh", "gelu_new")
    activation_names = ("hidden_activation", "hidden_act")
    tied_by_default = True
    period: ClassVar[int]
    """Every so many layers one attends to all tokens (llama.cpp's loader)."""
    layers_of_27b: ClassVar[int]
    """The model with so many layers has a scale of its own in llama.cpp."""

    def hyperparameters(self, metadata: Metadata, dimensions: Dimensions) -> None:
        """The decoder's keys and the window's."""
        super().hyperparameters(metadata, dimensions)
        self._check_scale(dimensions)
        layers = sliding_layers(self.config, dimensions["layers"], period=self.period)
        window = self.n_context
        if self.config.values.get("sliding_window") is not None:
            window = self.config.integer("sliding_window")
        write_window(metadata, self.architecture, window, layers, period=self.period)

    def _check_scale(self, dimensions: Dimensions) -> None:
        expected = dimensions["head_dim"]
        if dimensions["layers"] == self.layers_of_27b:
            expected = dimensions["embd"] // dimensions["heads"]
        scalar = self.config.number("query_pre_attn_scalar", default=256)
        if scalar != expected:
            raise self.config.fail(
                "query_pre_attn_scalar", f"must be {expected} for llama.cpp, not {scalar:g}"
            )


@register("Gemma2ForCausalLM")
class Gemma2(WindowedGemma):
    """Soft caps, and every other layer with a window."""

    architecture = "gemma2"
    defaults: ClassVar[Mapping[str, object]] = {
        "head_dim": 256,
        "max_position_embeddings": 8192,
        "sliding_window": 4096,
        "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0,
    }
    fixed = GEMMA_FIXED
    always_tied = True
    period = 2
    layers_of_27b = 46
    rules = offset_norms(*EMBEDDINGS, *FOUR_NORMS, *attention(), *GATED_MLP, *OUTPUT)

    def hyperparameters(self, metadata: Metadata, dimensions: Dimensions) -> None:
        """The keys of windowed Gemmas and the caps."""
        super().hyperparameters(metadata, dimensions)
        for name in ("attn_logit_softcapping", "final_logit_softcapping"):
            cap = self.config.number(name, default=_NO_CAP, minimum=1e-3)
            metadata.float32(self.key(name), cap)

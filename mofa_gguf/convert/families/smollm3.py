"""SmolLM 3. llama.cpp: src/models/smollm3.cpp."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from mofa_gguf.convert.families import register
from mofa_gguf.convert.families.base import Dimensions
from mofa_gguf.convert.families.decoder import EMBEDDINGS, GATED_MLP, OUTPUT, TWO_NORMS, Decoder
from mofa_gguf.convert.families.parts import attention
from mofa_gguf.convert.metadata import Metadata

_STEP = 4
"""Every so many layers llama.cpp leaves positions out."""


@register("SmolLM3ForCausalLM")
class SmolLM3(Decoder):
    """Llama with layers that know no positions."""

    architecture = "smollm3"
    defaults: ClassVar[Mapping[str, object]] = {"rope_theta": 2_000_000.0}
    fixed: ClassVar[Mapping[str, object]] = {"attention_bias": False, "mlp_bias": False}
    tied_by_default = True
    rules = (*EMBEDDINGS, *TWO_NORMS, *attention(paired=True), *GATED_MLP, *OUTPUT)

    def hyperparameters(self, metadata: Metadata, dimensions: Dimensions) -> None:
        """The decoder's keys."""
        super().hyperparameters(metadata, dimensions)
        metadata.uint32(self.key("rope.dimension_count"), dimensions["head_dim"])
        metadata.uint32(self.key("vocab_size"), dimensions["vocab"])
        self._check_positions(dimensions["layers"])
        if self.config.boolean("use_sliding_window", default=False):
            self.warn_of_window()

    def _check_positions(self, n_layers: int) -> None:
        expected = [int((i + 1) % _STEP != 0) for i in range(n_layers)]
        found = self.config.values.get("no_rope_layers")
        if found is None:
            step = self.config.integer("no_rope_layer_interval", default=_STEP)
            found = [int((i + 1) % step != 0) for i in range(n_layers)]
        if not isinstance(found, list) or found[:n_layers] != expected:
            raise self.config.fail(
                "no_rope_layers", f"must leave out every {_STEP}th layer for llama.cpp"
            )

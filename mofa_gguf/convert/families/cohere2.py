"""Command R7B and A. llama.cpp: src/models/cohere2.cpp."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from mofa_gguf.convert.families import register
from mofa_gguf.convert.families.base import Dimensions
from mofa_gguf.convert.families.cohere import ParallelCohere
from mofa_gguf.convert.families.windows import sliding_layers, write_window
from mofa_gguf.convert.metadata import Metadata

_PERIOD = 4


@register("Cohere2ForCausalLM")
class Cohere2(ParallelCohere):
    """Layers with a window and rotary positions, between layers with neither."""

    architecture = "cohere2"
    defaults: ClassVar[Mapping[str, object]] = {
        "max_position_embeddings": 8192,
        "sliding_window": 4096,
    }

    def hyperparameters(self, metadata: Metadata, dimensions: Dimensions) -> None:
        """The family's keys and the window's."""
        super().hyperparameters(metadata, dimensions)
        metadata.uint32(self.key("rope.dimension_count"), dimensions["head_dim"])
        layers = sliding_layers(self.config, dimensions["layers"], period=_PERIOD)
        window = self.config.integer("sliding_window")
        write_window(metadata, self.architecture, window, layers, period=_PERIOD)

"""dots.llm1. llama.cpp: src/models/dots1.cpp."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from mofa_gguf.convert.families import register
from mofa_gguf.convert.families.base import Dimensions
from mofa_gguf.convert.families.decoder import EMBEDDINGS, OUTPUT, TWO_NORMS
from mofa_gguf.convert.families.parts import LAYER, attention, norm
from mofa_gguf.convert.families.routed import ROUTED_MLP, RoutedDecoder
from mofa_gguf.convert.metadata import Metadata


@register("Dots1ForCausalLM")
class Dots1(RoutedDecoder):
    """DeepSeek's experts behind plain attention with norms of queries and keys."""

    architecture = "dots1"
    demands_head = True
    defaults: ClassVar[Mapping[str, object]] = {
        "max_window_layers": 62,
        "moe_intermediate_size": 1408,
        "sliding_window": 4096,
    }
    fixed: ClassVar[Mapping[str, object]] = {"attention_bias": False}
    rules = (
        *EMBEDDINGS,
        *TWO_NORMS,
        *attention(),
        *norm(f"{LAYER}.self_attn.q_norm", "blk.{i}.attn_q_norm", "head_dim"),
        *norm(f"{LAYER}.self_attn.k_norm", "blk.{i}.attn_k_norm", "head_dim"),
        *ROUTED_MLP,
        *OUTPUT,
    )

    def hyperparameters(self, metadata: Metadata, dimensions: Dimensions) -> None:
        """The keys of such experts; llama.cpp knows no shared heads and no window here."""
        super().hyperparameters(metadata, dimensions)
        if dimensions["kv_heads"] != dimensions["heads"]:
            raise self.config.fail(
                "num_key_value_heads", f"must be {dimensions['heads']} for llama.cpp"
            )
        self.write_normalized(metadata, default=False)
        types = self.config.values.get("layer_types")
        if types is None:
            first = self.config.integer("max_window_layers", default=0, minimum=0)
            has_windows = first < dimensions["layers"]
        else:
            has_windows = isinstance(types, list) and "sliding_attention" in types
        if has_windows:
            self.warn_of_window()

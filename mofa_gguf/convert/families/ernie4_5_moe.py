"""ERNIE 4.5 with experts. llama.cpp: src/models/ernie4-5-moe.cpp; both rotate neighbours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

from mofa_gguf.convert.families import register
from mofa_gguf.convert.families.base import Dimensions
from mofa_gguf.convert.families.decoder import EMBEDDINGS, OUTPUT, TWO_NORMS
from mofa_gguf.convert.families.ernie4_5 import Ernie45
from mofa_gguf.convert.families.experts import ExpertDecoder, fused_experts, single_experts
from mofa_gguf.convert.families.parts import LAYER, attention
from mofa_gguf.convert.families.routed import (
    DENSE,
    ROUTED,
    dense_mlp,
    router,
    shared_experts,
)
from mofa_gguf.convert.metadata import Metadata
from mofa_gguf.convert.weights import Weights

_MLP = f"{LAYER}.mlp"
_SHARED = "layer with experts for every token"


def _vector(weights: Weights, dimensions: Dimensions) -> Weights:
    return replace(weights, shape=(weights.n_elements,))


@register("Ernie4_5_MoeForCausalLM")
class Ernie45Moe(ExpertDecoder, Ernie45):
    """Experts chosen by softmax and a correction; their weights are made to add up to one."""

    architecture = "ernie4_5-moe"
    renamed: ClassVar[Mapping[str, str]] = {
        "moe_k": "num_experts_per_tok",
        "moe_num_experts": "num_experts",
    }
    defaults: ClassVar[Mapping[str, object]] = {
        "max_position_embeddings": 131_072,
        "moe_intermediate_size": 1536,
        "num_experts": 64,
        "num_experts_per_tok": 6,
        "num_key_value_heads": 4,
        "rope_theta": 500_000.0,
    }
    rules = (
        *EMBEDDINGS,
        *TWO_NORMS,
        *attention(),
        *dense_mlp(),
        *(
            # The correction is stored as a matrix of one row.
            replace(rule, shape=("one", "experts"), transform=_vector) if rule.optional else rule
            for rule in router(correction=f"{_MLP}.moe_statics.e_score_correction_bias")
        ),
        *(replace(rule, kind=_SHARED) for rule in shared_experts()),
        *single_experts(_MLP),
        *fused_experts(f"{_MLP}.experts.gate_up_proj", f"{_MLP}.experts.down_proj"),
        *OUTPUT,
    )
    skip: ClassVar[Mapping[str, str]] = {
        **Ernie45.skip,
        "model.mtp_*": "predicts further tokens, which generating text does not need",
    }

    def canonical(self, name: str) -> str:
        """transformers 5 has another name of the correction in memory."""
        return super().canonical(name).replace(".gate.moe_statics.", ".moe_statics.")

    def dimensions(self) -> Dimensions:
        """The width of the experts for every token too."""
        sizes = super().dimensions()
        return {**sizes, "shared": sizes["ff_exp"] * self._n_shared, "one": 1}

    @property
    def _n_shared(self) -> int:
        return self.config.integer("moe_num_shared_experts", default=2, minimum=0, maximum=1024)

    @property
    def _n_dense(self) -> int:
        return self.config.integer("moe_layer_start_index", default=1, minimum=0, maximum=512)

    def kinds(self, layer: int | None) -> tuple[str, ...]:
        """What follows the attention."""
        if layer is not None and layer < self._n_dense:
            return (DENSE,)
        return (ROUTED, *([_SHARED] if self._n_shared else []), *super().kinds(layer))

    def hyperparameters(self, metadata: Metadata, dimensions: Dimensions) -> None:
        """The keys of experts, and which layers have them."""
        super().hyperparameters(metadata, dimensions)
        config, n_layers = self.config, dimensions["layers"]
        if config.integer("moe_layer_interval", default=1) != 1:
            raise config.fail("moe_layer_interval", "must be 1 for llama.cpp")
        last = config.integer("moe_layer_end_index", default=-1, minimum=-1)
        if last not in (-1, n_layers - 1):
            raise config.fail("moe_layer_end_index", f"must be {n_layers - 1} for llama.cpp")
        metadata.uint32(self.key("interleave_moe_layer_step"), 1)
        metadata.uint32(self.key("leading_dense_block_count"), self._n_dense)
        metadata.uint32(self.key("expert_feed_forward_length"), dimensions["ff_exp"])
        if self._n_shared:
            metadata.uint32(self.key("expert_shared_count"), self._n_shared)
            metadata.uint32(self.key("expert_shared_feed_forward_length"), dimensions["shared"])

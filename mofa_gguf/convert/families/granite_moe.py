"""Granite 3 with experts. llama.cpp: src/models/granite-moe.cpp, with Llama's graph and rope."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from mofa_gguf.convert.families import register
from mofa_gguf.convert.families.base import MAX_WIDTH, Dimensions, Rule
from mofa_gguf.convert.families.experts import (
    FUSED,
    ExpertDecoder,
    fused_experts,
    gate_half,
    up_half,
)
from mofa_gguf.convert.families.llama import Llama
from mofa_gguf.convert.metadata import Metadata

_BLOCK = "model.layers.{i}.block_sparse_moe"
_GATE_UP, _DOWN = f"{_BLOCK}.input_linear.weight", f"{_BLOCK}.output_linear.weight"
# Names in files, and those that transformers 5 has in memory.
_FORMER_NAMES = {
    ".experts.gate_up_proj": ".input_linear.weight",
    ".experts.down_proj": ".output_linear.weight",
    ".router.weight": ".router.layer.weight",
}
# Factors: llama.cpp's key, the name in config.json.
_SCALES = (
    ("attention.scale", "attention_multiplier"),
    ("embedding_scale", "embedding_multiplier"),
    ("residual_scale", "residual_multiplier"),
    ("logit_scale", "logits_scaling"),
)


_SHARED = "an expert for every token"


@register("GraniteMoeForCausalLM", "GraniteMoeSharedForCausalLM")
class GraniteMoe(ExpertDecoder, Llama):
    """Llama's attention with four factors of its own; experts stored in two tensors a layer."""

    architecture = "granitemoe"
    width_keys = ("intermediate_size",)
    defaults: ClassVar[Mapping[str, object]] = {"num_experts_per_tok": 2, "num_local_experts": 8}
    fused_name = _GATE_UP
    rules = (
        *(rule for rule in Llama.rules if ".mlp." not in rule.source),
        Rule(f"{_BLOCK}.router.layer.weight", "blk.{i}.ffn_gate_inp.weight", ("experts", "embd")),
        *fused_experts(_GATE_UP, _DOWN),
        *(
            Rule(
                "model.layers.{i}.shared_mlp.input_linear.weight",
                f"blk.{{i}}.ffn_{name}_shexp.weight",
                ("ff_shared_twice", "embd"),
                half,
                kind=_SHARED,
            )
            for name, half in (("gate", gate_half), ("up", up_half))
        ),
        Rule(
            "model.layers.{i}.shared_mlp.output_linear.weight",
            "blk.{i}.ffn_down_shexp.weight",
            ("embd", "ff_shared"),
            kind=_SHARED,
        ),
    )

    def canonical(self, name: str) -> str:
        """With the names that files have."""
        name = super().canonical(name)
        for end, former in _FORMER_NAMES.items():
            if name.endswith(end):
                return name.removesuffix(end) + former
        return name

    def kinds(self, layer: int | None) -> tuple[str, ...]:
        """Experts come in no other form; some models have one that every token goes through."""
        return (FUSED, _SHARED) if self._n_shared else (FUSED,)

    @property
    def _n_shared(self) -> int:
        return self.config.integer(
            "shared_intermediate_size", default=0, minimum=0, maximum=MAX_WIDTH
        )

    def dimensions(self) -> Dimensions:
        """The width of the expert for every token too."""
        width = self._n_shared
        return {**super().dimensions(), "ff_shared": width, "ff_shared_twice": 2 * width}

    def hyperparameters(self, metadata: Metadata, dimensions: Dimensions) -> None:
        """The keys of Llama and of experts, and the factors."""
        super().hyperparameters(metadata, dimensions)
        if self._n_shared:
            metadata.uint32(self.key("expert_shared_feed_forward_length"), self._n_shared)
        for key, name in _SCALES:
            metadata.float32(self.key(key), self.config.number(name, default=1.0, minimum=1e-9))

    def is_70b(self, dimensions: Dimensions) -> bool:
        """llama.cpp knows none of that size."""
        return False

"""What families with experts share: sizes, routing keys, stacks of the experts' matrices.

Checkpoints hold an expert's matrices one by one, or all experts' in one tensor, gate and up under
each other, as transformers 5 holds them in memory. llama.cpp wants one stack a matrix.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import ClassVar

import numpy as np

from mofa_gguf.convert.families.base import MAX_WIDTH, Dimensions, Rule, Traits
from mofa_gguf.convert.families.decoder import Decoder
from mofa_gguf.convert.metadata import Metadata
from mofa_gguf.convert.weights import Weights, rows_of_each, transposed

MAX_EXPERTS = 1024  # LLAMA_MAX_EXPERTS
SINGLE, FUSED = "experts one by one", "experts in one tensor"
TRANSPOSED = "experts in one tensor, rows and columns exchanged"


def gate_half(weights: Weights, dimensions: Dimensions) -> Weights:
    """The upper half of the rows of each matrix."""
    return rows_of_each(weights, np.arange(weights.shape[-2] // 2))


def up_half(weights: Weights, dimensions: Dimensions) -> Weights:
    """The lower half of the rows of each matrix."""
    n_rows = weights.shape[-2]
    return rows_of_each(weights, np.arange(n_rows // 2, n_rows))


def single_experts(
    block: str, gate: str = "gate_proj", up: str = "up_proj", down: str = "down_proj"
) -> tuple[Rule, ...]:
    """Rules for experts stored one by one; ``block`` is the name of the layer's expert part."""
    shapes = ((gate, "gate", ("ff_exp", "embd")), (up, "up", ("ff_exp", "embd")))
    return tuple(
        Rule(
            f"{block}.experts.{{e}}.{source}.weight",
            f"blk.{{i}}.ffn_{target}_exps.weight",
            shape,
            kind=SINGLE,
        )
        for source, target, shape in (*shapes, (down, "down", ("embd", "ff_exp")))
    )


def fused_experts(gate_up: str, down: str) -> tuple[Rule, ...]:
    """Rules for experts that are stored in two tensors a layer."""
    both = ("experts", "ff_exp_twice", "embd")
    one = ("experts", "embd", "ff_exp")
    return (
        Rule(gate_up, "blk.{i}.ffn_gate_exps.weight", both, gate_half, kind=FUSED),
        Rule(gate_up, "blk.{i}.ffn_up_exps.weight", both, up_half, kind=FUSED),
        Rule(down, "blk.{i}.ffn_down_exps.weight", one, kind=FUSED),
    )


def transposed_experts(gate_up: str, down: str) -> tuple[Rule, ...]:
    """Rules for experts in two tensors a layer whose matrices take inputs by rows."""
    both = ("experts", "embd", "ff_exp_twice")
    one = ("experts", "ff_exp", "embd")

    def gate(weights: Weights, dimensions: Dimensions) -> Weights:
        return gate_half(transposed(weights), dimensions)

    def up(weights: Weights, dimensions: Dimensions) -> Weights:
        return up_half(transposed(weights), dimensions)

    def plain(weights: Weights, dimensions: Dimensions) -> Weights:
        return transposed(weights)

    return (
        Rule(gate_up, "blk.{i}.ffn_gate_exps.weight", both, gate, kind=TRANSPOSED),
        Rule(gate_up, "blk.{i}.ffn_up_exps.weight", both, up, kind=TRANSPOSED),
        Rule(down, "blk.{i}.ffn_down_exps.weight", one, plain, kind=TRANSPOSED),
    )


class ExpertDecoder(Decoder):
    """A decoder whose feed-forward parts are experts, some of them used for each token."""

    fused_name: ClassVar[str] = "model.layers.{i}.mlp.experts.gate_up_proj"
    """The tensor that tells experts stored in one tensor."""
    width_keys: ClassVar[tuple[str, ...]] = ("moe_intermediate_size",)
    """Where config.json has the width of an expert."""

    def dimensions(self) -> Dimensions:
        """The decoder's, and the experts' number and width."""
        dimensions = dict(super().dimensions())
        config = self.config
        dimensions["experts"] = config.integer(
            "num_local_experts", "num_experts", "n_routed_experts", minimum=2, maximum=MAX_EXPERTS
        )
        dimensions["experts_used"] = config.integer(
            "num_experts_per_tok", maximum=dimensions["experts"]
        )
        dimensions["ff_exp"] = config.integer(*self.width_keys, maximum=MAX_WIDTH)
        dimensions["ff_exp_twice"] = 2 * dimensions["ff_exp"]
        return dimensions

    def hyperparameters(self, metadata: Metadata, dimensions: Dimensions) -> None:
        """The decoder's keys and those of the routing."""
        super().hyperparameters(metadata, dimensions)
        metadata.uint32(self.key("expert_count"), dimensions["experts"])
        metadata.uint32(self.key("expert_used_count"), dimensions["experts_used"])

    def kinds(self, layer: int | None) -> tuple[str, ...]:
        """How a layer's experts are stored."""
        stored = FUSED if self.fused_name.format(i=layer) in self._shapes else SINGLE
        return (stored, *super().kinds(layer))

    def shape_of(self, name: str) -> tuple[int, ...] | None:
        """The shape of a tensor by its canonical name, or None where there is none."""
        return self._shapes.get(name)

    @functools.cached_property
    def _shapes(self) -> dict[str, tuple[int, ...]]:
        tensors = self.checkpoint.tensors
        return {self.canonical(name): tensor.shape for name, tensor in tensors.items()}

    def traits(self, dimensions: Dimensions) -> Traits:
        """The decoder's, and the number of experts."""
        return replace(super().traits(dimensions), n_experts=dimensions["experts"])

"""Experts as DeepSeek arranges them, and GLM, dots and others after it.

The first layers are dense; in the others some experts are chosen for each token, by scores that a
correction may shift, and one or a few serve every token. llama.cpp: ``build_moe_ffn`` in
src/llama-graph.cpp.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from mofa_gguf.convert.families.base import Dimensions, Rule
from mofa_gguf.convert.families.experts import ExpertDecoder, fused_experts, single_experts
from mofa_gguf.convert.families.parts import LAYER, matrix
from mofa_gguf.convert.metadata import Metadata

DENSE, ROUTED = "dense layer", "layer with experts"
SOFTMAX, SIGMOID = 1, 2  # llama_expert_gating_func_type
_MLP = f"{LAYER}.mlp"


def of_kind(kind: str, *rules: Rule) -> tuple[Rule, ...]:
    """The same rules for layers of one kind only."""
    return tuple(replace(rule, kind=kind) for rule in rules)


def dense_mlp(block: str = _MLP) -> tuple[Rule, ...]:
    """A gated feed-forward part in the layers without experts."""
    return of_kind(
        DENSE,
        matrix(f"{block}.gate_proj", "blk.{i}.ffn_gate", "ff", "embd"),
        matrix(f"{block}.up_proj", "blk.{i}.ffn_up", "ff", "embd"),
        matrix(f"{block}.down_proj", "blk.{i}.ffn_down", "embd", "ff"),
    )


def shared_experts(block: str = f"{_MLP}.shared_experts") -> tuple[Rule, ...]:
    """The experts for every token, as one of "shared" rows."""
    return of_kind(
        ROUTED,
        matrix(f"{block}.gate_proj", "blk.{i}.ffn_gate_shexp", "shared", "embd"),
        matrix(f"{block}.up_proj", "blk.{i}.ffn_up_shexp", "shared", "embd"),
        matrix(f"{block}.down_proj", "blk.{i}.ffn_down_shexp", "embd", "shared"),
    )


def router(
    gate: str = f"{_MLP}.gate", correction: str | None = None, *, demanded: bool = False
) -> tuple[Rule, ...]:
    """The matrix of the scores and their correction, ``demanded`` where llama.cpp asks for it."""
    correction = f"{gate}.e_score_correction_bias" if correction is None else correction
    bias = Rule(correction, "blk.{i}.exp_probs_b.bias", ("experts",), optional=not demanded)
    return of_kind(ROUTED, matrix(gate, "blk.{i}.ffn_gate_inp", "experts", "embd"), bias)


ROUTED_MLP = (
    *dense_mlp(),
    *router(),
    *shared_experts(),
    *single_experts(_MLP),
    *fused_experts(f"{_MLP}.experts.gate_up_proj", f"{_MLP}.experts.down_proj"),
)


class RoutedDecoder(ExpertDecoder):
    """A decoder with such experts."""

    gating: ClassVar[int] = SIGMOID

    def dimensions(self) -> Dimensions:
        """The experts', the width of those for every token, and the number of dense layers."""
        sizes = dict(super().dimensions())
        sizes["shared"] = sizes["ff_exp"] * self.n_shared
        sizes["dense_layers"] = self.n_dense(sizes["layers"])
        return sizes

    @property
    def n_shared(self) -> int:
        """Experts for every token."""
        return self.config.integer("n_shared_experts", default=1, maximum=1024)

    def n_dense(self, n_layers: int) -> int:
        """Dense layers before the first with experts."""
        return self.config.integer("first_k_dense_replace", default=0, minimum=0, maximum=n_layers)

    def kinds(self, layer: int | None) -> tuple[str, ...]:
        """What follows the attention."""
        n_layers = self.config.integer("num_hidden_layers")
        if layer is not None and layer < self.n_dense(n_layers):
            return (DENSE,)
        return (ROUTED, *super().kinds(layer))

    def hyperparameters(self, metadata: Metadata, dimensions: Dimensions) -> None:
        """The keys of experts, and how they are arranged."""
        super().hyperparameters(metadata, dimensions)
        metadata.uint32(self.key("leading_dense_block_count"), dimensions["dense_layers"])
        metadata.uint32(self.key("expert_feed_forward_length"), dimensions["ff_exp"])
        metadata.uint32(self.key("expert_shared_count"), self.n_shared)
        metadata.uint32(self.key("expert_gating_func"), self.gating)
        scale = self.config.number("routed_scaling_factor", default=1.0, minimum=1e-6)
        metadata.float32(self.key("expert_weights_scale"), scale)
        self.group_keys(metadata, dimensions)

    def group_keys(self, metadata: Metadata, dimensions: Dimensions) -> None:
        """Experts in groups, of which some are looked at for a token."""
        experts = dimensions["experts"]
        groups = self.config.integer("n_group", default=1, maximum=experts)
        used = self.config.integer("topk_group", default=groups, maximum=groups)
        if groups == used:
            return
        if experts % groups or experts // groups < 2:
            raise self.config.fail("n_group", f"must part {experts} experts into equal groups")
        metadata.uint32(self.key("expert_group_count"), groups)
        metadata.uint32(self.key("expert_group_used_count"), used)

    def write_normalized(self, metadata: Metadata, *, default: bool) -> None:
        """Whether the weights of the experts used are made to add up to one."""
        normalized = self.config.boolean("norm_topk_prob", default=default)
        metadata.boolean(self.key("expert_weights_norm"), normalized)

    def _skip(self, canonical: str, name: str) -> None:
        """Layers behind the last one predict further tokens; nothing here has a use for them."""
        first = self.config.integer("num_hidden_layers")
        layer = canonical.removeprefix("model.layers.").partition(".")[0]
        if canonical.startswith("model.layers.") and layer.isdecimal() and int(layer) >= first:
            self.skipped[name] = "predicts further tokens, which generating text does not need"
        else:
            super()._skip(canonical, name)

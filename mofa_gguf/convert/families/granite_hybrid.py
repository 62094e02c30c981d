"""Granite 4: state spaces and attention, with experts or without, or attention alone.

llama.cpp: src/models/granite-hybrid.cpp; src/models/granite.cpp and granite-moe.cpp where all
layers attend.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

from mofa_gguf.convert.checkpoint import Checkpoint
from mofa_gguf.convert.config import Config
from mofa_gguf.convert.families import register
from mofa_gguf.convert.families.base import MAX_WIDTH, Dimensions, Family, Rule, Traits
from mofa_gguf.convert.families.decoder import Decoder
from mofa_gguf.convert.families.experts import gate_half, up_half
from mofa_gguf.convert.families.granite import Granite
from mofa_gguf.convert.families.granite_moe import GraniteMoe
from mofa_gguf.convert.families.layer_types import layer_types
from mofa_gguf.convert.families.parts import LAYER, matrix
from mofa_gguf.convert.families.routed import of_kind
from mofa_gguf.convert.families.state_spaces import StateSpaces, mixer
from mofa_gguf.convert.metadata import Metadata

_LINEAR, _FULL = "linear_attention", "full_attention"
_MLP = f"{LAYER}.shared_mlp"
_DEFAULTS: Mapping[str, object] = {
    "mamba_d_head": "auto",
    "mamba_d_state": 256,
    "mamba_n_groups": 1,
    "mamba_n_heads": 128,
    "max_position_embeddings": 2048,
    "num_experts_per_tok": 2,
    "num_local_experts": 8,
    "shared_intermediate_size": 1024,
}


def _layers(config: Config) -> list[str]:
    n_layers = config.integer("num_hidden_layers")
    # Files of transformers 4 and 5 differ in the name.
    name = "layers_block_type" if "layers_block_type" in config else "layer_types"
    return layer_types(config, name, n_layers, (_LINEAR, _FULL), [_LINEAR] * n_layers)


class _Rotating(Decoder):
    """Attention in all layers, with positions: llama.cpp's Granites are not without."""

    def _check_fixed(self) -> None:
        super()._check_fixed()
        kind = self.config.string("position_embedding_type", default="none")
        if kind != "rope":
            raise self.config.fail("position_embedding_type", f"must be rope, not {kind!r:.20}")


class _AttendingExperts(_Rotating, GraniteMoe):
    """With experts."""

    defaults: ClassVar[Mapping[str, object]] = {**GraniteMoe.defaults, **_DEFAULTS}


class _DenseShared(Granite):
    """What would be the expert for every token is the feed-forward."""

    defaults: ClassVar[Mapping[str, object]] = _DEFAULTS
    rules = (
        *(rule for rule in Granite.rules if ".mlp." not in rule.source),
        *(
            Rule(
                f"{_MLP}.input_linear.weight",
                f"blk.{{i}}.ffn_{name}.weight",
                ("ff_twice", "embd"),
                half,
            )
            for name, half in (("gate", gate_half), ("up", up_half))
        ),
        matrix(f"{_MLP}.output_linear", "blk.{i}.ffn_down", "embd", "ff"),
    )

    def inner_width(self, embd: int) -> int:
        """Under the name of the expert for every token."""
        return self.config.integer("shared_intermediate_size", maximum=MAX_WIDTH)

    def dimensions(self) -> Dimensions:
        """Gate and up are stored as one matrix."""
        sizes = super().dimensions()
        return {**sizes, "ff_twice": 2 * sizes["ff"]}


class _AttendingDense(_Rotating, _DenseShared):
    """Without experts."""


class _Hybrid(StateSpaces):
    """State spaces in most layers."""

    architecture = "granitehybrid"
    takes_longrope = False

    def dimensions(self) -> Dimensions:
        """The decoder's, and those of the state spaces."""
        sizes = super().dimensions()
        found = {**sizes, **self.mixer_dimensions(sizes["embd"])}
        if found["inner"] != 2 * found["embd"]:
            raise self.config.fail("mamba_d_head", f"must make {2 * found['embd']} for llama.cpp")
        return found

    def kinds(self, layer: int | None) -> tuple[str, ...]:
        """Whether a layer attends."""
        own = () if layer is None else (_layers(self.config)[layer],)
        return (*own, *super().kinds(layer))

    def hyperparameters(self, metadata: Metadata, dimensions: Dimensions) -> None:
        """The keys of both kinds of layers, and which are which."""
        super().hyperparameters(metadata, dimensions)
        self.write_mixer(metadata, dimensions)
        layers = _layers(self.config)
        if _FULL not in layers:
            raise self.config.fail("layer_types", f"must hold {_FULL} for llama.cpp")
        heads = [dimensions["kv_heads"] if kind == _FULL else 0 for kind in layers]
        metadata.int32s(self.key("attention.head_count_kv"), heads)
        rotates = self.config.string("position_embedding_type", default="nope") == "rope"
        metadata.boolean(self.key("rope.scaling.finetuned"), rotates)

    def traits(self, dimensions: Dimensions) -> Traits:
        """llama.cpp counts the query heads a key-value head in the first layer."""
        traits = super().traits(dimensions)
        return traits if _layers(self.config)[0] == _FULL else replace(traits, n_gqa=0)


def _hybrid_rules(rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
    """The attention's rules for some layers, the state spaces' for the others."""
    attends = [rule for rule in rules if ".self_attn." in rule.source]
    others = [rule for rule in rules if rule not in attends]
    return (*others, *of_kind(_FULL, *attends), *of_kind(_LINEAR, *mixer(f"{LAYER}.mamba")))


class _HybridDense(_Hybrid, _DenseShared):
    """Without experts."""

    fixed: ClassVar[Mapping[str, object]] = StateSpaces.fixed
    rules = _hybrid_rules(_DenseShared.rules)


@register("GraniteMoeHybridForCausalLM")
class GraniteHybrid(_Hybrid, GraniteMoe):
    """With experts; one class of transformers holds the other shapes too."""

    defaults: ClassVar[Mapping[str, object]] = {**GraniteMoe.defaults, **_DEFAULTS}
    fixed: ClassVar[Mapping[str, object]] = StateSpaces.fixed
    rules = _hybrid_rules(GraniteMoe.rules)

    @classmethod
    def chosen(cls, checkpoint: Checkpoint) -> type[Family]:
        """By the layers and by whether there are experts."""
        config = checkpoint.config.completed(_DEFAULTS, {})
        has_experts = config.integer("num_local_experts", minimum=0) > 0
        if _LINEAR in _layers(config):
            return cls if has_experts else _HybridDense
        return _AttendingExperts if has_experts else _AttendingDense

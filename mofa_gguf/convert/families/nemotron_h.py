"""Nemotron-H, Nemotron Nano 2 and 3, Nemotron 3 Super: each layer one of four things.

llama.cpp: src/models/nemotron-h.cpp, src/models/nemotron-h-moe.cpp; a layer with key-value heads
attends, one with a feed-forward's width is such a part, the others are state spaces.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

from mofa_gguf.convert.checkpoint import Checkpoint
from mofa_gguf.convert.families import register
from mofa_gguf.convert.families.base import MAX_LAYERS, MAX_WIDTH, Dimensions, Family, Rule, Traits
from mofa_gguf.convert.families.experts import FUSED, MAX_EXPERTS, SINGLE
from mofa_gguf.convert.families.layer_types import layer_types
from mofa_gguf.convert.families.parts import attention, matrix, norm
from mofa_gguf.convert.families.routed import of_kind, router
from mofa_gguf.convert.families.state_spaces import StateSpaces, mixer
from mofa_gguf.convert.metadata import Metadata

_EMBEDDING = "backbone.embeddings.weight"
_LAYER = "backbone.layers.{i}"
_MIXER = f"{_LAYER}.mixer"
_LINEAR, _FULL, _MLP, _ROUTED = "linear_attention", "full_attention", "mlp", "moe"
_LETTERS = {"M": _LINEAR, "*": _FULL, "-": _MLP, "E": _ROUTED}
_LATENT = "experts of another width"


@register("NemotronHForCausalLM")
class NemotronH(StateSpaces):
    """Feed-forward parts without a gate, with the square of ReLU; no positions."""

    architecture = "nemotron_h"
    rotary = False
    embedding = _EMBEDDING
    activations = ("relu2",)
    activation_names = ("mlp_hidden_act",)
    epsilon_names = ("layer_norm_epsilon",)
    default_epsilon = 1e-5
    renamed: ClassVar[Mapping[str, str]] = {"attention_head_dim": "head_dim"}
    defaults: ClassVar[Mapping[str, object]] = {
        "head_dim": 128,
        "mamba_head_dim": 64,
        "mamba_num_heads": 128,
        "max_position_embeddings": 4096,
        "n_groups": 8,
        "num_key_value_heads": 8,
        "ssm_state_size": 128,
    }
    fixed: ClassVar[Mapping[str, object]] = {
        **StateSpaces.fixed,
        "attention_bias": False,
        "mlp_bias": False,
    }
    skip: ClassVar[Mapping[str, str]] = {
        **StateSpaces.skip,
        "mtp.*": "predicts further tokens, which generating text does not need",
    }
    rules = (
        Rule(_EMBEDDING, "token_embd.weight", ("vocab", "embd")),
        *norm(f"{_LAYER}.norm", "blk.{i}.attn_norm"),
        *of_kind(_LINEAR, *mixer(_MIXER)),
        *of_kind(_FULL, *attention(source=_MIXER)),
        *of_kind(
            _MLP,
            matrix(f"{_MIXER}.up_proj", "blk.{i}.ffn_up", "ff", "embd"),
            matrix(f"{_MIXER}.down_proj", "blk.{i}.ffn_down", "embd", "ff"),
        ),
        *norm("backbone.norm_f", "output_norm"),
        Rule("lm_head.weight", "output.weight", ("vocab", "embd"), optional=True),
    )

    @classmethod
    def chosen(cls, checkpoint: Checkpoint) -> type[Family]:
        """With experts it is another architecture to llama.cpp."""
        family = cls(checkpoint, "NemotronHForCausalLM")
        return NemotronHMoe if _ROUTED in family.layers() else cls

    def canonical(self, name: str) -> str:
        """With the prefix that published files have; transformers 5 has another in memory."""
        name = super().canonical(name)
        return "backbone." + name.removeprefix("model.") if name.startswith("model.") else name

    def layers(self) -> list[str]:
        """For every layer what it is: from a list or, in older files, from a text of letters."""
        config = self.config
        names = ("layers_block_type", "layer_types")
        name = next((name for name in names if name in config), None)
        if name is not None:
            found = config.values[name]
            n_layers = len(found) if isinstance(found, list) else 0
            return layer_types(config, name, n_layers, tuple(_LETTERS.values()), [])
        pattern = config.string("hybrid_override_pattern", default="")
        if not pattern or set(pattern) - set(_LETTERS):
            raise config.fail(
                "hybrid_override_pattern", f"must be a text of the letters {' '.join(_LETTERS)}"
            )
        return [_LETTERS[letter] for letter in pattern]

    def dimensions(self) -> Dimensions:
        """The decoder's, and those of the state spaces."""
        layers = self.layers()
        if not 0 < len(layers) <= MAX_LAYERS:
            raise self.config.fail("layers_block_type", f"must be 1 to {MAX_LAYERS} layers")
        self.config.values = {**self.config.values, "num_hidden_layers": len(layers)}
        sizes = super().dimensions()
        return {**sizes, **self.mixer_dimensions(sizes["embd"])}

    def inner_width(self, embd: int) -> int:
        """Of the layers that are feed-forward parts."""
        return super().inner_width(embd) if _MLP in self.layers() else 0

    def kinds(self, layer: int | None) -> tuple[str, ...]:
        """What a layer is."""
        return () if layer is None else (self.layers()[layer],)

    def hyperparameters(self, metadata: Metadata, dimensions: Dimensions) -> None:
        """The decoder's keys, those of the state spaces, and what each layer is."""
        super().hyperparameters(metadata, dimensions)
        layers = self.layers()
        if not {_LINEAR, _FULL} <= set(layers) or {_MLP, _ROUTED} <= set(layers):
            raise self.config.fail(
                "layers_block_type",
                f"must hold {_LINEAR}, {_FULL} and not both {_MLP} and {_ROUTED}, for llama.cpp",
            )
        self.write_mixer(metadata, dimensions)
        epsilon = self.config.number(*self.epsilon_names, default=self.default_epsilon)
        metadata.float32(self.key("attention.layer_norm_epsilon"), epsilon)
        heads = [dimensions["kv_heads"] if kind == _FULL else 0 for kind in layers]
        metadata.int32s(self.key("attention.head_count_kv"), heads)
        width = dimensions.get("ff_exp", dimensions["ff"])
        widths = [width if kind in (_MLP, _ROUTED) else 0 for kind in layers]
        metadata.int32s(self.key("feed_forward_length"), widths)
        metadata.boolean(self.key("rope.scaling.finetuned"), False)

    def traits(self, dimensions: Dimensions) -> Traits:
        """llama.cpp counts the query heads a key-value head in the first layer."""
        traits = super().traits(dimensions)
        shared = traits.n_gqa if self.layers()[0] == _FULL else 0
        return replace(traits, n_gqa=shared, n_experts=dimensions.get("experts", 0))


_EXPERTS = f"{_MIXER}.experts"
_SHARED = f"{_MIXER}.shared_experts"


class NemotronHMoe(NemotronH):
    """Experts in place of the feed-forward parts, of their own width in the largest."""

    architecture = "nemotron_h_moe"
    defaults: ClassVar[Mapping[str, object]] = {
        **NemotronH.defaults,
        "moe_intermediate_size": 7688,
        "moe_shared_expert_intermediate_size": 7688,
        "n_routed_experts": 8,
        "num_experts_per_tok": 2,
    }
    rules = (
        *(rule for rule in NemotronH.rules if rule.kind != _MLP),
        *(replace(rule, kind=_ROUTED) for rule in router(f"{_MIXER}.gate", demanded=True)),
        *of_kind(
            SINGLE,
            matrix(f"{_EXPERTS}.{{e}}.up_proj", "blk.{i}.ffn_up_exps", "ff_exp", "latent"),
            matrix(f"{_EXPERTS}.{{e}}.down_proj", "blk.{i}.ffn_down_exps", "latent", "ff_exp"),
        ),
        *of_kind(
            FUSED,
            Rule(
                f"{_EXPERTS}.up_proj", "blk.{i}.ffn_up_exps.weight", ("experts", "ff_exp", "latent")
            ),
            Rule(
                f"{_EXPERTS}.down_proj",
                "blk.{i}.ffn_down_exps.weight",
                ("experts", "latent", "ff_exp"),
            ),
        ),
        *of_kind(
            _LATENT,
            matrix(f"{_MIXER}.fc1_latent_proj", "blk.{i}.ffn_latent_down", "latent", "embd"),
            matrix(f"{_MIXER}.fc2_latent_proj", "blk.{i}.ffn_latent_up", "embd", "latent"),
        ),
        *of_kind(
            _ROUTED,
            matrix(f"{_SHARED}.up_proj", "blk.{i}.ffn_up_shexp", "ff_shared", "embd"),
            matrix(f"{_SHARED}.down_proj", "blk.{i}.ffn_down_shexp", "embd", "ff_shared"),
        ),
    )

    @classmethod
    def chosen(cls, checkpoint: Checkpoint) -> type[Family]:
        """The choice was made."""
        return cls

    def canonical(self, name: str) -> str:
        """The correction has two spellings."""
        return super().canonical(name).replace("e_score_correction.bias", "e_score_correction_bias")

    @property
    def _latent(self) -> int:
        return self.config.integer("moe_latent_size", default=0, maximum=MAX_WIDTH)

    def dimensions(self) -> Dimensions:
        """The experts' too."""
        config = self.config
        sizes = super().dimensions()
        experts = config.integer("n_routed_experts", minimum=2, maximum=MAX_EXPERTS)
        n_shared = config.integer("n_shared_experts", default=1)
        shared = config.integer("moe_shared_expert_intermediate_size", maximum=MAX_WIDTH)
        return {
            **sizes,
            "experts": experts,
            "experts_used": config.integer("num_experts_per_tok", maximum=experts),
            "ff_exp": config.integer("moe_intermediate_size", maximum=MAX_WIDTH),
            "ff_shared": shared,
            "n_shared": n_shared,
            "latent": self._latent or sizes["embd"],
        }

    def kinds(self, layer: int | None) -> tuple[str, ...]:
        """How experts are stored, where there are some."""
        kinds = super().kinds(layer)
        if _ROUTED not in kinds:
            return kinds
        names = {self.canonical(name) for name in self.checkpoint.tensors}
        stored = FUSED if f"{_EXPERTS}.up_proj".format(i=layer) in names else SINGLE
        return (*kinds, stored, *([_LATENT] if self._latent else []))

    def hyperparameters(self, metadata: Metadata, dimensions: Dimensions) -> None:
        """The keys above and those of the routing."""
        super().hyperparameters(metadata, dimensions)
        config = self.config
        if config.integer("n_group", default=1) != config.integer("topk_group", default=1):
            raise config.fail("topk_group", "must be n_group for llama.cpp")
        metadata.uint32(self.key("expert_count"), dimensions["experts"])
        metadata.uint32(self.key("expert_used_count"), dimensions["experts_used"])
        metadata.uint32(self.key("expert_feed_forward_length"), dimensions["ff_exp"])
        metadata.uint32(self.key("expert_shared_feed_forward_length"), dimensions["ff_shared"])
        metadata.uint32(self.key("expert_shared_count"), dimensions["n_shared"])
        normalized = config.boolean("norm_topk_prob", default=True)
        metadata.boolean(self.key("expert_weights_norm"), normalized)
        scale = config.number("routed_scaling_factor", default=1.0, minimum=1e-6)
        metadata.float32(self.key("expert_weights_scale"), scale)
        if self._latent:
            metadata.uint32(self.key("moe_latent_size"), self._latent)

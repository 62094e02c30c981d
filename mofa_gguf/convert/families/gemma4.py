"""Gemma 4, dense and with experts, text only. llama.cpp: src/models/gemma4.cpp.

Layers that attend to all tokens have heads of another size than those with a window, and may take
their keys for values; the last layers may take keys and values from earlier ones. Some models have
an embedding of each token for each layer. The norms hold the factor itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import ClassVar

import numpy as np

from mofa_gguf.convert.config import Config
from mofa_gguf.convert.families import register
from mofa_gguf.convert.families.base import MAX_WIDTH, Dimensions, NamedWeights, Traits
from mofa_gguf.convert.families.decoder import Decoder
from mofa_gguf.convert.families.experts import MAX_EXPERTS
from mofa_gguf.convert.families.gemma3 import local_theta
from mofa_gguf.convert.families.gemma4_rules import (
    FULL,
    NARROW,
    PER_LAYER,
    ROUTED,
    RULES,
    SLIDING,
    WIDE,
    with_keys,
    with_values,
)
from mofa_gguf.convert.families.layer_types import layer_types
from mofa_gguf.convert.families.rope import Rope, read_rope
from mofa_gguf.convert.families.text_part import TextPart
from mofa_gguf.convert.metadata import Metadata
from mofa_gguf.convert.weights import computed

_PERIOD = 6
_UNROTATED = 1e30
"""What a frequency is divided by so that nothing turns."""


@register("Gemma4ForCausalLM")
class Gemma4(Decoder):
    """Five layers with a window, then one without, by default."""

    architecture = "gemma4"
    tied_by_default = True
    activations = ("gelu_pytorch_tanh", "gelu_new")
    activation_names = ("hidden_activation", "hidden_act")
    fixed: ClassVar[Mapping[str, object]] = {"attention_bias": False}
    defaults: ClassVar[Mapping[str, object]] = {
        "head_dim": 256,
        "hidden_size_per_layer_input": 256,
        "max_position_embeddings": 131_072,
        "num_key_value_heads": 4,
        "partial_rotary_factor": 0.25,
        "rope_theta": 1_000_000.0,
        "sliding_window": 512,
    }
    rules = RULES
    skip: ClassVar[Mapping[str, str]] = {
        **Decoder.skip,
        "model.layers.*.self_attn.[kv]_*": "the layer takes the keys and values of an earlier one",
    }

    def dimensions(self) -> Dimensions:
        """The decoder's for layers with a window; the others' beside them."""
        config = self.config
        sizes = dict(super().dimensions())
        n_layers, heads = sizes["layers"], sizes["heads"]
        head_dim = self._of_full_layers("head_dim", n_layers, "global_head_dim", 512)
        if head_dim % 2:
            raise config.fail("global_head_dim", f"must be even, not {head_dim}")
        kv_heads = sizes["kv_heads"]
        former = "num_global_key_value_heads" if self._keys_are_values else None
        kv_heads = self._of_full_layers("num_key_value_heads", n_layers, former, kv_heads)
        if heads % kv_heads:
            raise config.fail("num_attention_heads", f"must be a multiple of {kv_heads}")
        layer_input = config.integer(
            "hidden_size_per_layer_input", default=0, minimum=0, maximum=MAX_WIDTH
        )
        n_own = config.integer("vocab_size_per_layer_input", default=sizes["vocab"])
        if layer_input and n_own != sizes["vocab"]:
            raise config.fail("vocab_size_per_layer_input", f"must be {sizes['vocab']}")
        sizes |= {
            "head_dim_full": head_dim,
            "kv_heads_full": kv_heads,
            "q_full": heads * head_dim,
            "kv_full": kv_heads * head_dim,
            "ff_twice": 2 * sizes["ff"],
            "layer_input": layer_input,
            "all_layers_input": n_layers * layer_input,
            "one": 1,
        }
        if self._is_routed:
            sizes["experts"] = config.integer("num_experts", minimum=2, maximum=MAX_EXPERTS)
            sizes["experts_used"] = config.integer("top_k_experts", maximum=sizes["experts"])
            sizes["ff_exp"] = config.integer(
                "moe_intermediate_size", "expert_intermediate_size", maximum=MAX_WIDTH
            )
            sizes["ff_exp_twice"] = 2 * sizes["ff_exp"]
        return sizes

    def _of_full_layers(self, name: str, n_layers: int, former: str | None, default: int) -> int:
        """A value of the layers that attend to all, which must be one for all of them.

        transformers 5.20 writes ``per_layer_config``, by the layers' numbers, and versions before
        it a value under a name of its own (``former``).
        """
        by_layer = self.config.section("per_layer_config")
        if by_layer is None:
            return default if former is None else self.config.integer(former, default=default)
        common = self.config.integer(name)
        found: dict[str, set[int]] = {SLIDING: {common}, FULL: set()}
        for i, kind in enumerate(self._layers(n_layers)):
            own = by_layer.section(str(i)) or Config({}, self.config.path)
            found[kind].add(own.integer(name, default=common))
        if len(found[SLIDING]) > 1 or len(found[FULL]) > 1:
            raise self.config.fail("per_layer_config", f"must have one {name} a kind of layer")
        return found[FULL].pop()

    def _layers(self, n_layers: int) -> list[str]:
        """For every layer what it attends to; transformers makes the last one attend to all."""
        default = [SLIDING if (i + 1) % _PERIOD else FULL for i in range(n_layers)]
        known = (SLIDING, FULL)
        found = layer_types(self.config, "layer_types", n_layers, known, default)
        return [*found[:-1], FULL]

    @property
    def _keys_are_values(self) -> bool:
        return self.config.boolean("attention_k_eq_v", default=False)

    @property
    def _is_routed(self) -> bool:
        return self.config.boolean("enable_moe_block", default=False)

    def _n_with_keys(self, n_layers: int) -> int:
        """Layers before those that take the keys and values of earlier ones."""
        shared = self.config.integer("num_kv_shared_layers", default=0, minimum=0, maximum=n_layers)
        own = n_layers - shared
        if shared and self._layers(n_layers)[max(own - 2, 0) : own] != [SLIDING, FULL]:
            raise self.config.fail(
                "layer_types",
                f"must end with {SLIDING}, {FULL} before the layers that share "
                "keys and values, for llama.cpp",
            )
        return own

    def kinds(self, layer: int | None) -> tuple[str, ...]:
        """What a layer attends to and with what; which parts it has."""
        per_layer = (PER_LAYER,) if self._has_layer_inputs else ()
        if layer is None:
            return per_layer
        n_layers = self.config.integer("num_hidden_layers")
        kind, kinds = self._layers(n_layers)[layer], [*per_layer]
        kinds.append(kind)
        has_keys = layer < self._n_with_keys(n_layers)
        if has_keys:
            kinds.append(with_keys(kind))
            if not (self._keys_are_values and kind == FULL):
                kinds.append(with_values(kind))
        kinds.append(NARROW if has_keys or not self._has_wide_layers else WIDE)
        return (*kinds, *([ROUTED] if self._is_routed else []))

    @property
    def _has_layer_inputs(self) -> bool:
        return self.config.integer("hidden_size_per_layer_input", default=0, minimum=0) > 0

    @property
    def _has_wide_layers(self) -> bool:
        return self.config.boolean("use_double_wide_mlp", default=False)

    def hyperparameters(self, metadata: Metadata, dimensions: Dimensions) -> None:
        """The decoder's keys, with those that differ from layer to layer."""
        super().hyperparameters(metadata, dimensions)
        if self.config.values.get("use_bidirectional_attention") not in (None, False, "vision"):
            raise self.config.fail(
                "use_bidirectional_attention", 'must be null or "vision" for llama.cpp'
            )
        n_layers = dimensions["layers"]
        is_full = [kind == FULL for kind in self._layers(n_layers)]
        if all(is_full):
            raise self.config.fail("layer_types", f"must hold {SLIDING} for llama.cpp")
        n_own = self._n_with_keys(n_layers)
        metadata.uint32(self.key("attention.shared_kv_layers"), n_layers - n_own)
        metadata.uint32(self.key("embedding_length_per_layer_input"), dimensions["layer_input"])
        metadata.uint32(self.key("attention.sliding_window"), self.config.integer("sliding_window"))
        metadata.booleans(
            self.key("attention.sliding_window_pattern"), [not full for full in is_full]
        )
        for name in ("key_length", "value_length"):
            metadata.uint32(self.key(f"attention.{name}"), dimensions["head_dim_full"])
            metadata.uint32(self.key(f"attention.{name}_swa"), dimensions["head_dim"])
        if dimensions["kv_heads_full"] != dimensions["kv_heads"]:
            heads = [dimensions["kv_heads_full" if full else "kv_heads"] for full in is_full]
            metadata.int32s(self.key("attention.head_count_kv"), heads)
        if self._has_wide_layers:
            widths = [dimensions["ff" if i < n_own else "ff_twice"] for i in range(n_layers)]
            metadata.int32s(self.key("feed_forward_length"), widths)
        if self._is_routed:
            metadata.uint32(self.key("expert_count"), dimensions["experts"])
            metadata.uint32(self.key("expert_used_count"), dimensions["experts_used"])
            metadata.uint32(self.key("expert_feed_forward_length"), dimensions["ff_exp"])
        self._rope_keys(metadata, dimensions)
        # Without the key llama.cpp takes 30; 0 stands for none.
        cap = self.config.number("final_logit_softcapping", default=0.0, minimum=0.0)
        metadata.float32(self.key("final_logit_softcapping"), cap)

    def _rope_keys(self, metadata: Metadata, dimensions: Dimensions) -> None:
        metadata.float32(self.key("rope.freq_base_swa"), local_theta(self.config))
        metadata.uint32(self.key("rope.dimension_count"), dimensions["head_dim_full"])
        metadata.uint32(self.key("rope.dimension_count_swa"), dimensions["head_dim"])

    @property
    def _full_rope(self) -> Rope:
        """The settings of the layers that attend to all tokens, as they are."""
        rope = read_rope(self.config, self.n_context, layers=FULL)
        return replace(rope, kind="proportional") if not rope.settings.values else rope

    @property
    def rope(self) -> Rope:
        """The same, as a plain rotation of whole heads: llama.cpp has the rest as factors."""
        rope = self._full_rope
        if rope.kind not in ("proportional", "default"):
            raise rope.settings.fail("rope_type", "must be proportional or default for llama.cpp")
        return replace(rope, kind="default", rotated_part=1.0)

    def extra_tensors(self, dimensions: Dimensions) -> Iterator[NamedWeights]:
        """What the frequencies of the layers that attend to all tokens are divided by."""
        rope, half = self._full_rope, dimensions["head_dim_full"] // 2
        factors = np.full(half, _UNROTATED, dtype=np.float32)
        part = rope.rotated_part if rope.kind == "proportional" else 1.0
        factors[: int(part * dimensions["head_dim_full"] // 2)] = rope.settings.number(
            "factor", default=1.0, minimum=1e-6
        )
        yield NamedWeights("rope_freqs.weight", computed(factors))

    def traits(self, dimensions: Dimensions) -> Traits:
        """llama.cpp counts the heads of the first layer."""
        name = "kv_heads_full" if self._layers(dimensions["layers"])[0] == FULL else "kv_heads"
        return replace(
            super().traits(dimensions),
            n_gqa=dimensions["heads"] // dimensions[name],
            n_experts=dimensions.get("experts", 0),
        )


@register("Gemma4ForConditionalGeneration")
class MultimodalGemma4(TextPart, Gemma4):
    """The language model of a checkpoint that sees and hears too."""

    skip: ClassVar[Mapping[str, str]] = {**Gemma4.skip, **TextPart.skip}

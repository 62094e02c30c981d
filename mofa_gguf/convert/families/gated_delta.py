"""Gated delta nets between layers of gated attention: Qwen3-Next and Qwen 3.5.

llama.cpp: src/models/qwen3next.cpp, src/models/qwen35.cpp, src/models/qwen35moe.cpp. The norms
outside of the nets hold what is added to one. Heads of queries and gates alternate in one matrix,
in the checkpoint and in llama.cpp.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from mofa_gguf.convert.families.base import MAX_WIDTH, Dimensions, Rule
from mofa_gguf.convert.families.decoder import EMBEDDINGS, OUTPUT, Decoder
from mofa_gguf.convert.families.epsilons import share_epsilon
from mofa_gguf.convert.families.gemma import offset_norms
from mofa_gguf.convert.families.layer_types import layer_types
from mofa_gguf.convert.families.parts import LAYER, matrix, norm
from mofa_gguf.convert.families.routed import of_kind
from mofa_gguf.convert.metadata import Metadata

ATTENTION, NET = f"{LAYER}.self_attn", f"{LAYER}.linear_attn"
LINEAR, FULL = "linear_attention", "full_attention"
_PERIOD = 4
_NET_EPSILON = 1e-6
"""Under the lengths of the nets' queries and keys, whatever config.json says."""

FRAME = offset_norms(
    *EMBEDDINGS,
    *norm(f"{LAYER}.input_layernorm", "blk.{i}.attn_norm"),
    *norm(f"{LAYER}.post_attention_layernorm", "blk.{i}.post_attention_norm"),
    *of_kind(
        FULL,
        Rule(f"{ATTENTION}.q_proj.weight", "blk.{i}.attn_q.weight", ("q_and_gate", "embd")),
        matrix(f"{ATTENTION}.k_proj", "blk.{i}.attn_k", "kv", "embd"),
        matrix(f"{ATTENTION}.v_proj", "blk.{i}.attn_v", "kv", "embd"),
        matrix(f"{ATTENTION}.o_proj", "blk.{i}.attn_output", "embd", "q"),
        *norm(f"{ATTENTION}.q_norm", "blk.{i}.attn_q_norm", "head_dim"),
        *norm(f"{ATTENTION}.k_norm", "blk.{i}.attn_k_norm", "head_dim"),
    ),
    *OUTPUT,
)
"""All but the nets and the feed-forward parts."""


class GatedDelta(Decoder):
    """A decoder whose layers are nets, but for some that attend."""

    partly_rotated = True
    fixed: ClassVar[Mapping[str, object]] = {"attention_bias": False}
    defaults: ClassVar[Mapping[str, object]] = {
        "head_dim": 256,
        "max_position_embeddings": 32_768,
        "num_key_value_heads": 2,
        "partial_rotary_factor": 0.25,
    }
    skip: ClassVar[Mapping[str, str]] = {
        **Decoder.skip,
        "mtp.*": "predicts further tokens, which generating text does not need",
    }

    def dimensions(self) -> Dimensions:
        """The decoder's, and those of the nets."""
        config = self.config
        sizes = super().dimensions()
        key_heads = config.integer("linear_num_key_heads", default=16, maximum=MAX_WIDTH)
        value_heads = config.integer("linear_num_value_heads", default=32, maximum=MAX_WIDTH)
        if value_heads % key_heads:
            raise config.fail("linear_num_value_heads", f"must be a multiple of {key_heads}")
        size = config.integer("linear_key_head_dim", default=128, maximum=MAX_WIDTH)
        if config.integer("linear_value_head_dim", default=128) != size:
            raise config.fail("linear_value_head_dim", f"must be {size} for llama.cpp, as for keys")
        keys, values = size * key_heads, size * value_heads
        return {
            **sizes,
            "q_and_gate": 2 * sizes["q"],
            "key_heads": key_heads,
            "value_heads": value_heads,
            "state": size,
            "keys": keys,
            "inner": values,
            "channels": 2 * keys + values,
            "kernel": config.integer("linear_conv_kernel_dim", default=4, minimum=2, maximum=64),
            "one": 1,
        }

    def _layers(self, n_layers: int) -> list[str]:
        """For every layer what it is."""
        default = self._every(n_layers)
        return layer_types(self.config, "layer_types", n_layers, (LINEAR, FULL), default)

    @property
    def _period(self) -> int:
        return self.config.integer("full_attention_interval", default=_PERIOD)

    def _every(self, n_layers: int) -> list[str]:
        return [LINEAR if (i + 1) % self._period else FULL for i in range(n_layers)]

    def kinds(self, layer: int | None) -> tuple[str, ...]:
        """Whether a layer attends."""
        if layer is None:
            return ()
        return (self._layers(self.config.integer("num_hidden_layers"))[layer],)

    def hyperparameters(self, metadata: Metadata, dimensions: Dimensions) -> None:
        """The decoder's keys, those of the nets, and which layers have them."""
        super().hyperparameters(metadata, dimensions)
        share_epsilon(self, _NET_EPSILON)
        metadata.uint32(self.key("ssm.conv_kernel"), dimensions["kernel"])
        metadata.uint32(self.key("ssm.state_size"), dimensions["state"])
        metadata.uint32(self.key("ssm.group_count"), dimensions["key_heads"])
        metadata.uint32(self.key("ssm.time_step_rank"), dimensions["value_heads"])
        metadata.uint32(self.key("ssm.inner_size"), dimensions["inner"])
        layers = self._layers(dimensions["layers"])
        if LINEAR not in layers or FULL not in layers:
            raise self.config.fail("layer_types", f"must hold {LINEAR} and {FULL} for llama.cpp")
        metadata.booleans(
            self.key("attention.recurrent_layers"), [kind == LINEAR for kind in layers]
        )
        if layers == self._every(dimensions["layers"]):
            # For programs that know no other order of layers.
            metadata.uint32(self.key("full_attention_interval"), self._period)

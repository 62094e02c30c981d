"""Jamba: state spaces of the first Mamba, attention in some layers, experts in others.

llama.cpp: src/models/jamba.cpp; no positions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

from mofa_gguf.convert.families import register
from mofa_gguf.convert.families.base import MAX_WIDTH, Dimensions, Rule, Traits
from mofa_gguf.convert.families.decoder import EMBEDDINGS, HEAD
from mofa_gguf.convert.families.experts import ExpertDecoder, fused_experts, single_experts
from mofa_gguf.convert.families.parts import (
    LAYER,
    attention,
    matrix,
    norm,
)
from mofa_gguf.convert.families.routed import DENSE, ROUTED, dense_mlp, of_kind
from mofa_gguf.convert.families.selective import selective_mixer
from mofa_gguf.convert.metadata import Metadata

_LINEAR, _FULL = "linear_attention", "full_attention"
_MIXER, _MLP = f"{LAYER}.mamba", f"{LAYER}.feed_forward"


@register("JambaForCausalLM")
class Jamba(ExpertDecoder):
    """Every so many layers one attends, and every so many one has experts."""

    architecture = "jamba"
    rotary = False
    head_dim_is_width_by_heads = True
    fused_name = f"{_MLP}.experts.gate_up_proj"
    width_keys = ("intermediate_size",)
    defaults: ClassVar[Mapping[str, object]] = {
        "attn_layer_offset": 4,
        "attn_layer_period": 8,
        "expert_layer_offset": 1,
        "expert_layer_period": 2,
        "max_position_embeddings": 262_144,
        "num_experts": 16,
        "num_experts_per_tok": 2,
        "num_key_value_heads": 8,
    }
    fixed: ClassVar[Mapping[str, object]] = {"mamba_conv_bias": True, "mamba_proj_bias": False}
    rules = (
        *EMBEDDINGS,
        *norm(f"{LAYER}.input_layernorm", "blk.{i}.attn_norm"),
        *of_kind(_FULL, *attention()),
        *of_kind(
            _LINEAR,
            *selective_mixer(
                _MIXER,
                *norm(f"{_MIXER}.dt_layernorm", "blk.{i}.ssm_dt_norm", "step"),
                *norm(f"{_MIXER}.b_layernorm", "blk.{i}.ssm_b_norm", "state"),
                *norm(f"{_MIXER}.c_layernorm", "blk.{i}.ssm_c_norm", "state"),
            ),
        ),
        *norm(f"{LAYER}.pre_ff_layernorm", "blk.{i}.ffn_norm"),
        *dense_mlp(_MLP),
        *of_kind(ROUTED, matrix(f"{_MLP}.router", "blk.{i}.ffn_gate_inp", "experts", "embd")),
        *single_experts(_MLP),
        *fused_experts(f"{_MLP}.experts.gate_up_proj", f"{_MLP}.experts.down_proj"),
        *norm("model.final_layernorm", "output_norm"),
        Rule(HEAD, "output.weight", ("vocab", "embd"), optional=True),
    )

    def canonical(self, name: str) -> str:
        """The first checkpoints say "moe", and have dense layers as one expert."""
        name = super().canonical(name).replace(".moe.", ".feed_forward.")
        layer = name.removeprefix("model.layers.").partition(".")[0]
        if ".experts.0." in name and layer.isdecimal() and not self._is_routed(int(layer)):
            name = name.replace(".experts.0.", ".")
        return name

    def _is_routed(self, layer: int) -> bool:
        period = self.config.integer("expert_layer_period")
        return layer % period == self.config.integer("expert_layer_offset", minimum=0)

    def _attends(self, layer: int) -> bool:
        period = self.config.integer("attn_layer_period")
        return layer % period == self.config.integer("attn_layer_offset", minimum=0)

    def kinds(self, layer: int | None) -> tuple[str, ...]:
        """Whether a layer attends, and whether it has experts."""
        if layer is None:
            return ()
        kind = _FULL if self._attends(layer) else _LINEAR
        return (kind, ROUTED, *super().kinds(layer)) if self._is_routed(layer) else (kind, DENSE)

    def dimensions(self) -> Dimensions:
        """The experts', and those of the state spaces."""
        config = self.config
        sizes = super().dimensions()
        embd = sizes["embd"]
        inner = config.integer("mamba_expand", default=2, maximum=16) * embd
        if inner != 2 * embd:
            # llama.cpp ends the process then.
            raise config.fail("mamba_expand", "must be 2 for llama.cpp")
        state = config.integer("mamba_d_state", default=16, maximum=MAX_WIDTH)
        step = -(-embd // 16)
        if config.values.get("mamba_dt_rank") != "auto":
            step = config.integer("mamba_dt_rank", default=step, maximum=MAX_WIDTH)
        return {
            **sizes,
            "inner": inner,
            "inner_twice": 2 * inner,
            "state": state,
            "step": step,
            "step_and_states": step + 2 * state,
            "kernel": config.integer("mamba_d_conv", default=4, minimum=2, maximum=64),
            "one": 1,
        }

    def hyperparameters(self, metadata: Metadata, dimensions: Dimensions) -> None:
        """The keys of experts and of state spaces, and which layers attend."""
        super().hyperparameters(metadata, dimensions)
        attends = [self._attends(i) for i in range(dimensions["layers"])]
        if all(attends) or not any(attends):
            raise self.config.fail("attn_layer_period", "must leave both kinds of layers")
        heads = [dimensions["kv_heads"] if full else 0 for full in attends]
        metadata.int32s(self.key("attention.head_count_kv"), heads)
        metadata.uint32(self.key("ssm.conv_kernel"), dimensions["kernel"])
        metadata.uint32(self.key("ssm.inner_size"), dimensions["inner"])
        metadata.uint32(self.key("ssm.state_size"), dimensions["state"])
        metadata.uint32(self.key("ssm.time_step_rank"), dimensions["step"])

    def traits(self, dimensions: Dimensions) -> Traits:
        """llama.cpp counts the query heads a key-value head in the first layer."""
        traits = super().traits(dimensions)
        return traits if self._attends(0) else replace(traits, n_gqa=0)

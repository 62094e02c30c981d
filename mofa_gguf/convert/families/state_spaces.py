"""Mamba 2's state spaces, alone or among other layers. llama.cpp: src/models/mamba-base.cpp.

llama.cpp has no bounds for the length of a step; the usual ones (nothing, or a thousandth, below
and nothing above) change next to nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

from mofa_gguf.convert.families.base import MAX_WIDTH, Dimensions, Rule
from mofa_gguf.convert.families.decoder import Decoder
from mofa_gguf.convert.families.parts import decay, matrix, without_channels
from mofa_gguf.convert.metadata import Metadata
from mofa_gguf.convert.weights import Weights, reshaped


def _column(weights: Weights, dimensions: Dimensions) -> Weights:
    return reshaped(weights, (weights.n_elements, 1))


def _decays(weights: Weights, dimensions: Dimensions) -> Weights:
    return _column(decay(weights, dimensions), dimensions)


def _groups(weights: Weights, dimensions: Dimensions) -> Weights:
    return reshaped(weights, (dimensions["groups"], weights.n_elements // dimensions["groups"]))


def mixer(source: str, *, flag: str | None = None) -> tuple[Rule, ...]:
    """The rules of a layer's state spaces; the norm counts with a ``flag`` only where it is set."""
    return (
        matrix(f"{source}.in_proj", "blk.{i}.ssm_in", "mixer_in", "embd"),
        Rule(
            f"{source}.conv1d.weight",
            "blk.{i}.ssm_conv1d.weight",
            ("channels", "one", "kernel"),
            without_channels,
        ),
        Rule(f"{source}.conv1d.bias", "blk.{i}.ssm_conv1d.bias", ("channels",)),
        Rule(f"{source}.dt_bias", "blk.{i}.ssm_dt.bias", ("mixer_heads",)),
        Rule(f"{source}.A_log", "blk.{i}.ssm_a", ("mixer_heads",), _decays),
        Rule(f"{source}.D", "blk.{i}.ssm_d", ("mixer_heads",), _column),
        Rule(f"{source}.norm.weight", "blk.{i}.ssm_norm.weight", ("inner",), _groups, flag),
        matrix(f"{source}.out_proj", "blk.{i}.ssm_out", "embd", "inner"),
    )


class StateSpaces(Decoder):
    """A decoder with state spaces in some of its layers."""

    heads_names: ClassVar[tuple[str, ...]] = ("mamba_n_heads", "mamba_num_heads")
    head_size_names: ClassVar[tuple[str, ...]] = ("mamba_d_head", "mamba_head_dim")
    groups_names: ClassVar[tuple[str, ...]] = ("mamba_n_groups", "n_groups")
    state_names: ClassVar[tuple[str, ...]] = ("mamba_d_state", "ssm_state_size", "state_size")
    kernel_names: ClassVar[tuple[str, ...]] = ("mamba_d_conv", "conv_kernel")
    fixed: ClassVar[Mapping[str, object]] = {
        "mamba_conv_bias": True,
        "mamba_hidden_act": "silu",
        "mamba_proj_bias": False,
        "use_bias": False,
        "use_conv_bias": True,
    }

    def mixer_dimensions(self, embd: int) -> Dimensions:
        """Sizes of the state spaces in a model so wide."""
        config = self.config
        heads = config.integer(*self.heads_names, maximum=MAX_WIDTH)
        if config.values.get(self.head_size_names[0]) == "auto":
            inner = config.integer("mamba_expand", default=2, maximum=16) * embd
            if inner % heads:
                raise config.fail(self.heads_names[0], f"must divide {inner}")
        else:
            inner = heads * config.integer(*self.head_size_names, maximum=MAX_WIDTH)
        groups = config.integer(*self.groups_names, maximum=heads)
        if heads % groups or inner % groups:
            raise config.fail(self.groups_names[0], f"must divide {heads} heads")
        state = config.integer(*self.state_names, maximum=MAX_WIDTH)
        channels = inner + 2 * groups * state
        return {
            "mixer_heads": heads,
            "inner": inner,
            "groups": groups,
            "state": state,
            "channels": channels,
            "mixer_in": inner + channels + heads,
            "kernel": config.integer(*self.kernel_names, default=4, minimum=2, maximum=64),
            "one": 1,
        }

    def write_mixer(self, metadata: Metadata, dimensions: Dimensions) -> None:
        """The keys of the state spaces."""
        self._check_steps()
        metadata.uint32(self.key("ssm.conv_kernel"), dimensions["kernel"])
        metadata.uint32(self.key("ssm.inner_size"), dimensions["inner"])
        metadata.uint32(self.key("ssm.state_size"), dimensions["state"])
        metadata.uint32(self.key("ssm.time_step_rank"), dimensions["mixer_heads"])
        metadata.uint32(self.key("ssm.group_count"), dimensions["groups"])

    def _check_steps(self) -> None:
        bounds = self.config.values.get("time_step_limit")
        if bounds is None:
            return
        # transformers 5 writes infinity as an object with its name.
        numbers = [
            bound.get("__float__") if isinstance(bound, dict) else bound
            for bound in (bounds if isinstance(bounds, list) else [])
        ]
        try:
            low, high = (float(str(number)) for number in numbers)
        except ValueError:
            low, high = math.nan, math.nan
        if not (0 <= low <= 1e-3 and high == math.inf):
            raise self.config.fail("time_step_limit", "must be from 0 to infinity for llama.cpp")

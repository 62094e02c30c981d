"""Mamba, a decoder without attention. llama.cpp: src/models/mamba.cpp, mamba-base.cpp.

Checkpoints hold the logarithm of the decay; llama.cpp wants the decay itself, negative.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from mofa_gguf.convert.families import register
from mofa_gguf.convert.families.base import (
    MAX_LAYERS,
    MAX_VOCABULARY,
    MAX_WIDTH,
    Dimensions,
    Rule,
    Traits,
)
from mofa_gguf.convert.families.decoder import Decoder
from mofa_gguf.convert.families.epsilons import share_epsilon
from mofa_gguf.convert.families.parts import norm
from mofa_gguf.convert.families.selective import selective_mixer, write_without_heads
from mofa_gguf.convert.metadata import Metadata

_MIXER = "backbone.layers.{i}.mixer"
_EMBEDDING = "backbone.embeddings.weight"


@register("MambaForCausalLM")
class Mamba(Decoder):
    """Selective state spaces in place of attention and feed-forward parts."""

    architecture = "mamba"
    rotary = False
    norms_inside: ClassVar[bool] = False
    """Whether step, input and output of the state spaces are normalized."""
    tied_by_default = True
    embedding = _EMBEDDING
    epsilon_names = ("layer_norm_epsilon",)
    default_epsilon = 1e-5
    fixed: ClassVar[Mapping[str, object]] = {"use_bias": False, "use_conv_bias": True}
    rules = (
        Rule(_EMBEDDING, "token_embd.weight", ("vocab", "embd")),
        *norm("backbone.layers.{i}.norm", "blk.{i}.attn_norm"),
        *selective_mixer(_MIXER),
        *norm("backbone.norm_f", "output_norm"),
        Rule("lm_head.weight", "output.weight", ("vocab", "embd"), optional=True),
    )

    def dimensions(self) -> Dimensions:
        """Sizes from config.json."""
        config = self.config
        embd = config.integer("hidden_size", "d_model", maximum=MAX_WIDTH)
        expand = config.integer("expand", default=2, maximum=16)
        inner = config.integer("intermediate_size", default=expand * embd, maximum=MAX_WIDTH)
        if inner != 2 * embd:
            raise config.fail("intermediate_size", f"must be twice {embd} for llama.cpp")
        state = config.integer("state_size", default=16, maximum=MAX_WIDTH)
        step = -(-embd // 16)
        if config.values.get("time_step_rank") != "auto":
            step = config.integer("time_step_rank", default=step, maximum=MAX_WIDTH)
        return {
            "vocab": config.integer("vocab_size", maximum=MAX_VOCABULARY),
            "layers": config.integer("num_hidden_layers", "n_layer", maximum=MAX_LAYERS),
            "embd": embd,
            "inner": inner,
            "inner_twice": 2 * inner,
            "kernel": config.integer("conv_kernel", default=4, maximum=64),
            "one": 1,
            "state": state,
            "step": step,
            "step_and_states": step + 2 * state,
        }

    def hyperparameters(self, metadata: Metadata, dimensions: Dimensions) -> None:
        """The keys of a decoder without heads, and those of the state spaces."""
        self._check_fixed()
        write_without_heads(self, metadata, dimensions)
        metadata.uint32(self.key("ssm.conv_kernel"), dimensions["kernel"])
        metadata.uint32(self.key("ssm.inner_size"), dimensions["inner"])
        metadata.uint32(self.key("ssm.state_size"), dimensions["state"])
        metadata.uint32(self.key("ssm.time_step_rank"), dimensions["step"])
        metadata.boolean(self.key("ssm.dt_b_c_rms"), self.norms_inside)

    def traits(self, dimensions: Dimensions) -> Traits:
        """There are no heads."""
        return Traits(self.architecture, dimensions["layers"])


@register("FalconMambaForCausalLM")
class FalconMamba(Mamba):
    """Mamba with norms without weights inside."""

    norms_inside = True

    def hyperparameters(self, metadata: Metadata, dimensions: Dimensions) -> None:
        """Mamba's keys; llama.cpp has one epsilon for all norms."""
        super().hyperparameters(metadata, dimensions)
        inside = self.config.number("mixer_rms_eps", default=1e-6, minimum=0)
        share_epsilon(self, inside, name="mixer_rms_eps")

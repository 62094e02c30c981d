"""Mamba 2, a decoder without attention. llama.cpp: src/models/mamba2.cpp."""

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
from mofa_gguf.convert.families.parts import norm
from mofa_gguf.convert.families.selective import write_without_heads
from mofa_gguf.convert.families.state_spaces import StateSpaces, mixer
from mofa_gguf.convert.metadata import Metadata

_EMBEDDING = "backbone.embeddings.weight"


@register("Mamba2ForCausalLM")
class Mamba2(StateSpaces):
    """State spaces in every layer, and nothing else. Codestral's names have a prefix."""

    architecture = "mamba2"
    rotary = False
    embedding = _EMBEDDING
    prefixes = ("model.",)
    epsilon_names = ("layer_norm_epsilon",)
    default_epsilon = 1e-5
    heads_names = ("num_heads",)
    head_size_names = ("head_dim",)
    groups_names = ("n_groups",)
    state_names = ("state_size",)
    kernel_names = ("conv_kernel",)
    defaults: ClassVar[Mapping[str, object]] = {
        "head_dim": 64,
        "n_groups": 8,
        "num_heads": 128,
        "state_size": 128,
    }
    rules = (
        Rule(_EMBEDDING, "token_embd.weight", ("vocab", "embd")),
        *norm("backbone.layers.{i}.norm", "blk.{i}.attn_norm"),
        *mixer("backbone.layers.{i}.mixer"),
        *norm("backbone.norm_f", "output_norm"),
        Rule("lm_head.weight", "output.weight", ("vocab", "embd"), optional=True),
    )

    def dimensions(self) -> Dimensions:
        """Sizes from config.json."""
        embd = self.config.integer("hidden_size", maximum=MAX_WIDTH)
        return {
            "vocab": self.config.integer("vocab_size", maximum=MAX_VOCABULARY),
            "layers": self.config.integer("num_hidden_layers", maximum=MAX_LAYERS),
            "embd": embd,
            **self.mixer_dimensions(embd),
        }

    def hyperparameters(self, metadata: Metadata, dimensions: Dimensions) -> None:
        """The keys of a decoder without heads, and those of the state spaces."""
        self._check_fixed()
        write_without_heads(self, metadata, dimensions)
        self.write_mixer(metadata, dimensions)

    def traits(self, dimensions: Dimensions) -> Traits:
        """There are no heads."""
        return Traits(self.architecture, dimensions["layers"])

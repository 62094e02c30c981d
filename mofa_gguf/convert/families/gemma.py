"""Gemma 1, and what the later Gemmas share with it. llama.cpp: src/models/gemma.cpp.

transformers multiplies by one plus a norm's weight, llama.cpp by what the file holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

from mofa_gguf.convert.families import register
from mofa_gguf.convert.families.base import Dimensions, Rule
from mofa_gguf.convert.families.decoder import EMBEDDINGS, GATED_MLP, OUTPUT, TWO_NORMS, Decoder
from mofa_gguf.convert.families.parts import attention
from mofa_gguf.convert.weights import Weights, plus


def one_plus(weights: Weights, dimensions: Dimensions) -> Weights:
    """The transform for a norm's weight."""
    return plus(weights, 1.0)


def offset_norms(*rules: Rule) -> tuple[Rule, ...]:
    """The same rules with :func:`one_plus` for every norm."""
    return tuple(
        replace(rule, transform=one_plus) if rule.target.endswith("_norm.weight") else rule
        for rule in rules
    )


GEMMA_FIXED: Mapping[str, object] = {"attention_bias": False, "use_bidirectional_attention": False}


@register("GemmaForCausalLM")
class Gemma(Decoder):
    """Embeddings scaled by the root of the width, gelu, and the embeddings as output matrix."""

    architecture = "gemma"
    defaults: ClassVar[Mapping[str, object]] = {"head_dim": 256, "max_position_embeddings": 8192}
    # The first checkpoints say gelu and mean its approximation.
    activations = ("gelu_pytorch_tanh", "gelu", "gelu_new")
    activation_names = ("hidden_activation", "hidden_act")
    fixed = GEMMA_FIXED
    always_tied = tied_by_default = True
    rules = offset_norms(*EMBEDDINGS, *TWO_NORMS, *attention(), *GATED_MLP, *OUTPUT)

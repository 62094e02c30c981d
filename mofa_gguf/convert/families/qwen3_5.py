"""Qwen 3.5, dense and with experts, and the text parts of its checkpoints that see.

llama.cpp: src/models/qwen35.cpp, src/models/qwen35moe.cpp. Where several heads of values share
one of keys, the checkpoint has them side by side and llama.cpp expects the first of each, then the
second of each.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from mofa_gguf.convert.families import register
from mofa_gguf.convert.families.base import Dimensions, Rule
from mofa_gguf.convert.families.decoder import GATED_MLP
from mofa_gguf.convert.families.gated_delta import FRAME, LINEAR, NET, GatedDelta
from mofa_gguf.convert.families.parts import decay, norm, without_channels
from mofa_gguf.convert.families.qwen_moe import SHARED_EXPERT, QwenSharedExpert
from mofa_gguf.convert.families.qwen_vl import Sectioned
from mofa_gguf.convert.families.routed import of_kind
from mofa_gguf.convert.families.text_part import TextPart
from mofa_gguf.convert.weights import Weights, columns_reordered, reordered


def _heads(dimensions: Dimensions, size: int = 1) -> npt.NDArray[np.intp]:
    """The order of values, ``size`` a head."""
    rows = np.arange(dimensions["value_heads"] * size)
    order: npt.NDArray[np.intp] = (
        rows.reshape(dimensions["key_heads"], -1, size).swapaxes(0, 1).reshape(-1)
    )
    return order


def _by_head(weights: Weights, dimensions: Dimensions) -> Weights:
    return reordered(weights, _heads(dimensions))


def _rows(weights: Weights, dimensions: Dimensions) -> Weights:
    return reordered(weights, _heads(dimensions, dimensions["state"]))


def _last_rows(weights: Weights, dimensions: Dimensions) -> Weights:
    """Queries and keys stay where they are."""
    first = 2 * dimensions["keys"]
    values = first + _heads(dimensions, dimensions["state"])
    return reordered(weights, np.concatenate([np.arange(first), values]))


def _columns(weights: Weights, dimensions: Dimensions) -> Weights:
    return columns_reordered(weights, _heads(dimensions, dimensions["state"]))


def _kernels(weights: Weights, dimensions: Dimensions) -> Weights:
    return _last_rows(without_channels(weights, dimensions), dimensions)


def _decays(weights: Weights, dimensions: Dimensions) -> Weights:
    return _by_head(decay(weights, dimensions), dimensions)


_LAYERS = (
    *FRAME,
    *of_kind(
        LINEAR,
        Rule(
            f"{NET}.in_proj_qkv.weight", "blk.{i}.attn_qkv.weight", ("channels", "embd"), _last_rows
        ),
        Rule(f"{NET}.in_proj_z.weight", "blk.{i}.attn_gate.weight", ("inner", "embd"), _rows),
        Rule(
            f"{NET}.in_proj_b.weight", "blk.{i}.ssm_beta.weight", ("value_heads", "embd"), _by_head
        ),
        Rule(
            f"{NET}.in_proj_a.weight", "blk.{i}.ssm_alpha.weight", ("value_heads", "embd"), _by_head
        ),
        Rule(
            f"{NET}.conv1d.weight",
            "blk.{i}.ssm_conv1d.weight",
            ("channels", "one", "kernel"),
            _kernels,
        ),
        Rule(f"{NET}.dt_bias", "blk.{i}.ssm_dt.bias", ("value_heads",), _by_head),
        Rule(f"{NET}.A_log", "blk.{i}.ssm_a", ("value_heads",), _decays),
        *norm(f"{NET}.norm", "blk.{i}.ssm_norm", "state"),
        Rule(f"{NET}.out_proj.weight", "blk.{i}.ssm_out.weight", ("embd", "inner"), _columns),
    ),
)


@register("Qwen3_5ForCausalLM")
class Qwen35(Sectioned, GatedDelta):
    """The dense models."""

    architecture = "qwen35"
    default_sections = (11, 11, 10)
    defaults: ClassVar[Mapping[str, object]] = {**GatedDelta.defaults, "num_key_value_heads": 4}
    rules = (*_LAYERS, *GATED_MLP)


@register("Qwen3_5ForConditionalGeneration")
class MultimodalQwen35(TextPart, Qwen35):
    """The language model of a dense checkpoint that sees too."""

    skip: ClassVar[Mapping[str, str]] = {**GatedDelta.skip, **TextPart.skip}


@register("Qwen3_5MoeForCausalLM")
class Qwen35Moe(Sectioned, QwenSharedExpert, GatedDelta):
    """Experts in every layer, and one for every token; the weights of those used add up to one."""

    architecture = "qwen35moe"
    default_sections = (11, 11, 10)
    defaults: ClassVar[Mapping[str, object]] = {
        **GatedDelta.defaults,
        "moe_intermediate_size": 512,
        "num_experts": 256,
        "num_experts_per_tok": 8,
        "shared_expert_intermediate_size": 512,
    }
    fixed: ClassVar[Mapping[str, object]] = GatedDelta.fixed
    rules = (*_LAYERS, *SHARED_EXPERT)

    def inner_width(self, embd: int) -> int:
        """No layer is dense."""
        return 0


@register("Qwen3_5MoeForConditionalGeneration")
class MultimodalQwen35Moe(TextPart, Qwen35Moe):
    """The language model of a checkpoint with experts that sees too."""

    skip: ClassVar[Mapping[str, str]] = {**GatedDelta.skip, **TextPart.skip}

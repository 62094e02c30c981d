"""Qwen3-Next and Qwen3-Coder-Next. llama.cpp: src/models/qwen3next.cpp.

Queries, keys, values and gates of a net are stored head by head; llama.cpp wants each of the four
together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from mofa_gguf.convert.families import register
from mofa_gguf.convert.families.base import Dimensions, Rule
from mofa_gguf.convert.families.gated_delta import FRAME, LINEAR, NET, GatedDelta
from mofa_gguf.convert.families.parts import decay, matrix, norm, without_channels
from mofa_gguf.convert.families.qwen_moe import SHARED_EXPERT, QwenExperts, QwenSharedExpert
from mofa_gguf.convert.families.routed import of_kind
from mofa_gguf.convert.weights import Weights, rows_of_each


def _parts(dimensions: Dimensions) -> list[npt.NDArray[np.intp]]:
    """The rows of queries, keys, values and gates."""
    heads, size = dimensions["key_heads"], dimensions["state"]
    values = dimensions["value_heads"] // heads * size
    rows = np.arange(heads * (2 * size + 2 * values)).reshape(heads, -1)
    parts = np.split(rows, [size, 2 * size, 2 * size + values], axis=1)
    return [part.reshape(-1) for part in parts]


def _queries_keys_values(weights: Weights, dimensions: Dimensions) -> Weights:
    return rows_of_each(weights, np.concatenate(_parts(dimensions)[:3]))


def _gates(weights: Weights, dimensions: Dimensions) -> Weights:
    return rows_of_each(weights, _parts(dimensions)[3])


@register("Qwen3NextForCausalLM")
class Qwen3Next(QwenSharedExpert, GatedDelta):
    """Experts in every layer, and one for every token."""

    architecture = "qwen3next"
    defaults: ClassVar[Mapping[str, object]] = {
        **GatedDelta.defaults,
        "moe_intermediate_size": 512,
        "norm_topk_prob": True,
        "num_experts": 512,
        "num_experts_per_tok": 10,
        "shared_expert_intermediate_size": 512,
    }
    fixed: ClassVar[Mapping[str, object]] = {
        **QwenExperts.fixed,
        **GatedDelta.fixed,
        "norm_topk_prob": True,
    }
    rules = (
        *FRAME,
        *of_kind(
            LINEAR,
            Rule(
                f"{NET}.in_proj_qkvz.weight",
                "blk.{i}.attn_qkv.weight",
                ("net_in", "embd"),
                _queries_keys_values,
            ),
            Rule(
                f"{NET}.in_proj_qkvz.weight", "blk.{i}.attn_gate.weight", ("net_in", "embd"), _gates
            ),
            matrix(f"{NET}.in_proj_ba", "blk.{i}.ssm_ba", "scalars", "embd"),
            Rule(
                f"{NET}.conv1d.weight",
                "blk.{i}.ssm_conv1d.weight",
                ("channels", "one", "kernel"),
                without_channels,
            ),
            Rule(f"{NET}.dt_bias", "blk.{i}.ssm_dt.bias", ("value_heads",)),
            Rule(f"{NET}.A_log", "blk.{i}.ssm_a", ("value_heads",), decay),
            *norm(f"{NET}.norm", "blk.{i}.ssm_norm", "state"),
            matrix(f"{NET}.out_proj", "blk.{i}.ssm_out", "embd", "inner"),
        ),
        *SHARED_EXPERT,
    )

    def dimensions(self) -> Dimensions:
        """The stored sizes of the nets' inputs too."""
        sizes = super().dimensions()
        inputs = sizes["channels"] + sizes["inner"]
        return {**sizes, "net_in": inputs, "scalars": 2 * sizes["value_heads"]}

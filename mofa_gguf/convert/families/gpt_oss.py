"""OpenAI's gpt-oss: experts in four-bit blocks, windows, attention sinks.

llama.cpp: src/models/openai-moe.cpp. The blocks are kept, whatever quantization is asked for, and
only put into ggml's layout; fine-tunes that hold the experts as floats are converted like others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

import numpy as np

from mofa_gguf.convert.config import Config
from mofa_gguf.convert.families import register
from mofa_gguf.convert.families.base import Dimensions, Rule, Transform
from mofa_gguf.convert.families.decoder import EMBEDDINGS, OUTPUT
from mofa_gguf.convert.families.experts import ExpertDecoder
from mofa_gguf.convert.families.parts import LAYER, attention, bias, linear, norm, qkv_biases
from mofa_gguf.convert.families.rope import Rope
from mofa_gguf.convert.families.windows import sliding_layers, write_window
from mofa_gguf.convert.metadata import Metadata
from mofa_gguf.convert.mxfp4 import BLOCK_VALUES, read_mxfp4
from mofa_gguf.convert.weights import Weights, columns, rows_of_each, transposed

_MLP = f"{LAYER}.mlp"
_EXPERTS = f"{_MLP}.experts"
_BLOCKS, _SCALES = "_blocks", "_scales"
_FOUR_BIT, _FLOAT = "experts in four-bit blocks", "experts as floats"
_PERIOD = 2  # every second layer attends to all tokens


def _rows(first: int) -> Transform:
    """Gate and up take turns, row by row: every second row from ``first``."""

    def transform(weights: Weights, dimensions: Dimensions) -> Weights:
        return rows_of_each(weights, np.arange(first, weights.shape[-2], 2))

    return transform


def _rows_of_transposed(first: int) -> Transform:
    """The same where a matrix is stored with its inputs as rows."""

    def transform(weights: Weights, dimensions: Dimensions) -> Weights:
        turned = transposed(weights)
        return rows_of_each(turned, np.arange(first, turned.shape[-2], 2))

    return transform


def _turned(weights: Weights, dimensions: Dimensions) -> Weights:
    return transposed(weights)


def _biases(first: int) -> Transform:
    def transform(weights: Weights, dimensions: Dimensions) -> Weights:
        return columns(weights, slice(first, None, 2))

    return transform


def _stack(
    source: str, target: str, shape: tuple[str, ...], part: Transform | None, kind: str
) -> Rule:
    return Rule(
        f"{_EXPERTS}.{source}",
        f"blk.{{i}}.ffn_{target}_exps.weight",
        ("experts", *shape),
        part,
        kind=kind,
    )


@register("GptOssForCausalLM")
class GptOss(ExpertDecoder):
    """Biases everywhere; a sink for attention in every head; windows in every second layer."""

    architecture = "gpt-oss"
    width_keys = ("intermediate_size",)
    demands_head = True
    defaults: ClassVar[Mapping[str, object]] = {
        "head_dim": 64,
        "num_experts_per_tok": 4,
        "num_key_value_heads": 8,
        "num_local_experts": 128,
        "rms_norm_eps": 1e-5,
        "rope_scaling": {
            "rope_type": "yarn",
            "factor": 32.0,
            "original_max_position_embeddings": 4096,
            "truncate": False,
        },
        "rope_theta": 150_000.0,
        "sliding_window": 128,
    }
    fixed: ClassVar[Mapping[str, object]] = {
        "attention_bias": True,
        "swiglu_alpha": 1.702,
        "swiglu_limit": 7.0,
    }
    rules = (
        *EMBEDDINGS,
        *norm(f"{LAYER}.input_layernorm", "blk.{i}.attn_norm"),
        *norm(f"{LAYER}.post_attention_layernorm", "blk.{i}.post_attention_norm"),
        *attention(),
        *qkv_biases(),
        bias(f"{LAYER}.self_attn.o_proj", "blk.{i}.attn_output", "embd"),
        Rule(f"{LAYER}.self_attn.sinks", "blk.{i}.attn_sinks.weight", ("heads",)),
        *linear(f"{_MLP}.router", "blk.{i}.ffn_gate_inp", "experts", "embd"),
        _stack("gate_up_proj_blocks", "gate", ("ff_exp_twice", "embd"), _rows(0), _FOUR_BIT),
        _stack("gate_up_proj_blocks", "up", ("ff_exp_twice", "embd"), _rows(1), _FOUR_BIT),
        _stack("down_proj_blocks", "down", ("embd", "ff_exp"), None, _FOUR_BIT),
        _stack("gate_up_proj", "gate", ("embd", "ff_exp_twice"), _rows_of_transposed(0), _FLOAT),
        _stack("gate_up_proj", "up", ("embd", "ff_exp_twice"), _rows_of_transposed(1), _FLOAT),
        _stack("down_proj", "down", ("ff_exp", "embd"), _turned, _FLOAT),
        Rule(
            f"{_EXPERTS}.gate_up_proj_bias",
            "blk.{i}.ffn_gate_exps.bias",
            ("experts", "ff_exp_twice"),
            _biases(0),
        ),
        Rule(
            f"{_EXPERTS}.gate_up_proj_bias",
            "blk.{i}.ffn_up_exps.bias",
            ("experts", "ff_exp_twice"),
            _biases(1),
        ),
        Rule(f"{_EXPERTS}.down_proj_bias", "blk.{i}.ffn_down_exps.bias", ("experts", "embd")),
        *OUTPUT,
    )

    @property
    def rope(self) -> Rope:
        """With bounds of YaRN's ramp that are whole numbers: llama.cpp knows no others."""
        rope = super().rope
        values = {**rope.settings.values, "truncate": True}
        return replace(rope, settings=Config(values, rope.settings.path))

    def dimensions(self) -> Dimensions:
        """The decoder's and the experts'."""
        dimensions = super().dimensions()
        for name in ("embd", "ff_exp"):
            if dimensions[name] % BLOCK_VALUES and _FOUR_BIT in self.kinds(0):
                key = "hidden_size" if name == "embd" else "intermediate_size"
                raise self.config.fail(key, f"must be a multiple of {BLOCK_VALUES}")
        return dimensions

    def hyperparameters(self, metadata: Metadata, dimensions: Dimensions) -> None:
        """The keys of experts, and the window."""
        super().hyperparameters(metadata, dimensions)
        metadata.uint32(self.key("expert_feed_forward_length"), dimensions["ff_exp"])
        window = self.config.integer("sliding_window", default=128)
        layers = sliding_layers(self.config, dimensions["layers"], period=_PERIOD)
        write_window(metadata, self.architecture, window, layers, period=_PERIOD)
        settings = super().rope.settings
        if self.rope.kind == "yarn" and not settings.boolean("truncate", default=True):
            self.warnings.append(
                "llama.cpp rounds the bounds between which YaRN stretches the positions and the "
                "checkpoint does not: probabilities come out slightly different"
            )

    def kinds(self, layer: int | None) -> tuple[str, ...]:
        """How a layer's experts are stored."""
        blocks = f"{_EXPERTS}.gate_up_proj{_BLOCKS}".format(i=layer)
        return (_FOUR_BIT if blocks in self.checkpoint.tensors else _FLOAT,)

    def source_weights(self, name: str) -> Weights:
        """Blocks come together with their scales."""
        if name.endswith(_BLOCKS):
            return read_mxfp4(self.checkpoint, name, name.removesuffix(_BLOCKS) + _SCALES)
        return super().source_weights(name)

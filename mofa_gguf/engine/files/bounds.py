"""Hyperparameters by themselves: which are numbers, and from where to where they may go.

The bounds are those of llama.cpp's ``llama_model_base::load_hparams`` (src/llama-model.cpp) where
it has any, and else far beyond any model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from mofa_gguf.engine.files.header import ArraySummary, GGUFHeader

MAX_LAYERS = 512  # LLAMA_MAX_LAYERS
MAX_EXPERTS = 1024  # LLAMA_MAX_EXPERTS
MAX_WINDOW = 2**24  # far beyond any model; llama.cpp adds to it in 32 bits
_I32 = 2**31 - 1
# Stated as numbers below zero where there is none.
_MAY_BE_NEGATIVE = frozenset({"pooling_type", "router_layer", "classifier.pooling_type"})


class Bounds(NamedTuple):
    """What one number, or each of a list of one a layer, may be."""

    low: float
    high: float
    required: bool = False


# Whole numbers. A list, where llama.cpp takes one a layer, is held to the same bounds.
WHOLE: Mapping[str, Bounds] = {
    "context_length": Bounds(1, _I32, required=True),
    "embedding_length": Bounds(1, 2**20, required=True),
    "embedding_length_out": Bounds(0, 2**20),
    "block_count": Bounds(1, MAX_LAYERS, required=True),
    "nextn_predict_layers": Bounds(0, MAX_LAYERS - 1),
    "feed_forward_length": Bounds(0, 2**24),
    "expert_feed_forward_length": Bounds(0, 2**24),
    "expert_shared_feed_forward_length": Bounds(0, 2**24),
    "attention.head_count": Bounds(0, 2**16),
    "attention.head_count_kv": Bounds(0, 2**16),
    "attention.key_length": Bounds(1, 2**16),
    "attention.value_length": Bounds(1, 2**16),
    "attention.key_length_swa": Bounds(1, 2**16),
    "attention.value_length_swa": Bounds(1, 2**16),
    "attention.sliding_window": Bounds(0, MAX_WINDOW),
    "attention.shared_kv_layers": Bounds(0, MAX_LAYERS),
    "expert_count": Bounds(0, MAX_EXPERTS),
    "expert_used_count": Bounds(0, MAX_EXPERTS),
    "expert_shared_count": Bounds(0, MAX_EXPERTS),
    "expert_group_count": Bounds(0, MAX_EXPERTS),
    "expert_group_used_count": Bounds(0, MAX_EXPERTS),
    "leading_dense_block_count": Bounds(0, MAX_LAYERS),
    "interleave_moe_layer_step": Bounds(0, MAX_LAYERS),
    "full_attention_interval": Bounds(1, MAX_LAYERS),
    "rope.dimension_count": Bounds(0, 2**16),
    "rope.dimension_count_swa": Bounds(0, 2**16),
    "rope.scaling.original_context_length": Bounds(0, _I32),
    "ssm.conv_kernel": Bounds(1, 4096),
    "ssm.inner_size": Bounds(1, 2**24),
    "ssm.state_size": Bounds(1, 2**16),
    "ssm.time_step_rank": Bounds(1, 2**20),
    "ssm.group_count": Bounds(0, 2**16),
    "shortconv.l_cache": Bounds(1, 4096),
    "wkv.head_size": Bounds(1, 2**16),
    "token_shift_count": Bounds(1, 16),
    "vocab_size": Bounds(0, 2**24),
    "attention.group_norm_groups": Bounds(1, 2**16),
}
# Those that may be a list of one number a layer.
LISTS = frozenset(
    {
        *("attention.head_count", "attention.head_count_kv", "feed_forward_length"),
        *("expert_feed_forward_length", "expert_used_count"),
    }
)
# Numbers with a point.
REAL: Mapping[str, Bounds] = {
    "attention.layer_norm_epsilon": Bounds(0, 1e6),
    "attention.layer_norm_rms_epsilon": Bounds(0, 1e6),
    "attention.group_norm_epsilon": Bounds(0, 1e6),
    "rope.freq_base": Bounds(0, 1e30),
    "rope.freq_base_swa": Bounds(0, 1e30),
    "rope.scaling.factor": Bounds(0, 1e9),
    "rope.scale_linear": Bounds(0, 1e9),
    "attention.max_alibi_bias": Bounds(0, 1e9),
}

Fail = Callable[[str], Exception]
"""Makes the error for a problem."""


def check_bounds(header: GGUFHeader, fail: Fail) -> None:
    """Raises what ``fail`` makes of a value that is missing, of a wrong kind or out of bounds."""
    _check_each(header, fail)
    _check_lists(header, header.hyperparameter("block_count"), fail)


def _check_each(header: GGUFHeader, fail: Fail) -> None:
    prefix = header.architecture + "."
    own = {k[len(prefix) :]: v for k, v in header.metadata.items() if k.startswith(prefix)}
    for name, bounds in WHOLE.items():
        if bounds.required and name not in own:
            raise fail(f"{prefix}{name} is missing")
    for name, value in own.items():
        if isinstance(value, list) and name not in LISTS and (name in WHOLE or name in REAL):
            raise fail(f"{prefix}{name} is a list")
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, bool | str | ArraySummary):
                if name in WHOLE or name in REAL:
                    raise fail(f"{prefix}{name} is no number")
                continue
            _check_number(prefix, name, each, fail, in_list=isinstance(value, list))


def _check_number(prefix: str, name: str, value: Any, fail: Fail, *, in_list: bool) -> None:
    bounds = WHOLE.get(name) or REAL.get(name)
    shown = (
        f"{prefix}{name} is {value:g}" if isinstance(value, float) else f"{prefix}{name} is {value}"
    )
    if isinstance(value, float) and not math.isfinite(value):
        raise fail(shown)
    if name in WHOLE and not isinstance(value, int):
        raise fail(f"{shown}, no whole number")
    if bounds and not bounds.low <= value <= bounds.high:
        raise fail(f"{shown}, not from {bounds.low:g} to {bounds.high:g}")
    if bounds or in_list or isinstance(value, float):
        return
    lowest = -_I32 - 1 if name in _MAY_BE_NEGATIVE or name.endswith("_mapping") else -1
    if not lowest <= value <= 2 * _I32 + 1:
        raise fail(shown)


def _check_lists(header: GGUFHeader, n_layers: int, fail: Fail) -> None:
    for name in sorted(LISTS):
        value = header.hyperparameter(name)
        if isinstance(value, list) and len(value) != n_layers:
            raise fail(f"{name} has {len(value)} values for {n_layers} layers")

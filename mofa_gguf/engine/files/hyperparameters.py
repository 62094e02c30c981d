"""Hyperparameters that make sense, each by itself and together.

llama.cpp takes what a file says and ends the process where that cannot be: its assertions in
``llama_model_base::load_hparams`` (src/llama-model.cpp), in the graphs of src/models and in ggml's
operators are the source of the tables here. What llama.cpp itself refuses without ending the
process (missing tensors, shapes that do not agree) is left to it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mofa_gguf.engine.errors import ModelFileError
from mofa_gguf.engine.files import known
from mofa_gguf.engine.files.header import ArraySummary, GGUFHeader

MAX_LAYERS = 512  # LLAMA_MAX_LAYERS
MAX_EXPERTS = 1024  # LLAMA_MAX_EXPERTS
MAX_WINDOW = 2**24  # far beyond any model; llama.cpp adds to it in 32 bits
_I32 = 2**31 - 1
_ROPE_SCALINGS = ("none", "linear", "yarn", "longrope")
_POOLINGS = range(-1, 5)  # enum llama_pooling_type
# Stated as numbers below zero where there is none.
_MAY_BE_NEGATIVE = frozenset({"pooling_type", "router_layer", "classifier.pooling_type"})


@dataclass(frozen=True)
class Bounds:
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
# Their graphs assert that rope.dimension_count is the length of a head.
_ROTATES_ITS_HEADS_WHOLE = frozenset(
    {
        *("apertus", "arcee", "arctic", "baichuan", "chameleon", "codeshell", "cogvlm", "dbrx"),
        *("cohere2moe", "deci", "deepseek", "dots1", "dream", "ernie4_5", "ernie4_5-moe", "exaone"),
        *(
            "exaone-moe",
            "exaone4",
            "falcon",
            "granite",
            "granitemoe",
            "granite_swa",
            "grok",
            "orion",
        ),
        *("grovemoe", "hunyuan-moe", "hunyuan_vl", "hunyuan-dense", "hy_v3", "internlm2", "jais2"),
        *(
            "llada",
            "llada-moe",
            "llama",
            "llama-embed",
            "llama4",
            "maincoder",
            "mellum",
            "mistral3",
        ),
        *("minimax-01", "olmo", "olmo2", "olmoe", "paddleocr", "pangu-embedded", "plamo", "qwen2"),
        *("qwen2moe", "qwen2vl", "qwen3", "qwen3moe", "qwen3vl", "qwen3vlmoe", "rnd1", "seed_oss"),
        *("smallthinker", "smollm3", "starcoder2", "talkie", "xverse"),
    }
)
# Their graphs assert that keys are as long as values.
_HEADS_OF_ONE_LENGTH = _ROTATES_ITS_HEADS_WHOLE | {
    *("afmoe", "bailingmoe2", "bert", "nomic-bert", "nomic-bert-moe", "jina-bert-v2", "bitnet"),
    *("jina-bert-v3", "bloom", "chatglm", "cohere2", "command-r", "eurobert", "glm4", "glm4moe"),
    *("gpt2", "gptneox", "jais", "modern-bert", "mpt", "nemotron", "neo-bert", "openelm", "phi2"),
    *("phi3", "phimoe", "qwen", "refact", "stablelm", "starcoder", "t5encoder", "minimax-m2"),
}
# Those that llama.cpp runs and the package gguf does not name yet.
_NEWER = frozenset(
    {
        *("bailingmoe3", "cohere2moe", "deepseek32", "deepseek4", "dots3note", "glm5-next"),
        *("granite_swa", "graniteswitch", "hrm_text", "hy_v3", "hy_v4", "kimi-k3", "laguna"),
        *("maple", "mellum", "minimax-01", "minimax-m3", "muse-glimmer", "nanbeige", "qwen4exp"),
        *("spark2_5", "talkie"),
    }
)
# They have no attention at all.
_RECURRENT = frozenset({"mamba", "mamba2", "rwkv6", "rwkv6qwen2", "rwkv7", "arwkv7"})
_MAMBA = frozenset({"mamba", "mamba2"})

Fail = Callable[[str], Exception]


def check_hyperparameters(header: GGUFHeader) -> None:
    """Raises ModelFileError for values that llama.cpp cannot work with.

    An architecture that the format does not name passes: llama.cpp says best what it does not know.
    """
    from gguf.constants import MODEL_ARCH_NAMES

    if header.architecture not in {*MODEL_ARCH_NAMES.values(), *_NEWER}:
        return

    def fail(problem: str) -> Exception:
        return ModelFileError(header.path, f"is damaged or no sound model: {problem}")

    _check_each(header, fail)
    n_layers: int = header.hyperparameter("block_count")
    _check_lists(header, n_layers, fail)
    _check_layers(header, n_layers, fail)
    _check_experts(header, n_layers, fail)
    _check_heads(header, n_layers, fail)
    _check_rope(header, fail)
    _check_states(header, fail)


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


def _check_layers(header: GGUFHeader, n_layers: int, fail: Fail) -> None:
    extra = _whole(header, "nextn_predict_layers")
    if extra >= n_layers:
        raise fail(f"nextn_predict_layers is {extra} of {n_layers} layers")
    for name in ("leading_dense_block_count", "attention.shared_kv_layers"):
        if _whole(header, name) > n_layers:
            raise fail(f"{name} is {_whole(header, name)} of {n_layers} layers")
    width, out = (_whole(header, f"embedding_length{end}") for end in ("", "_out"))
    if out > width and header.architecture in known.ARCHITECTURES:
        raise fail(f"embedding_length_out is {out}, and embedding_length {width}")
    pooling = header.hyperparameter("pooling_type")
    if isinstance(pooling, int) and pooling not in _POOLINGS:
        raise fail(f"pooling_type is {pooling}, which llama.cpp does not know")


def _check_experts(header: GGUFHeader, n_layers: int, fail: Fail) -> None:
    n_experts = _whole(header, "expert_count")
    n_used = max(per_layer(header, "expert_used_count", n_layers), default=0)
    groups, used_groups = (_whole(header, f"expert_group_{w}") for w in ("count", "used_count"))
    if n_used > n_experts:
        raise fail(f"{n_used} experts are used of {n_experts}")
    if n_experts and not n_used:
        raise fail(f"none of {n_experts} experts are used")
    if groups and groups >= n_experts:
        raise fail(f"{n_experts} experts are in {groups} groups")
    if groups > 1 and (n_experts % groups or not 0 < used_groups < groups):
        raise fail(f"{used_groups} of {groups} groups of {n_experts} experts are used")


def _check_heads(header: GGUFHeader, n_layers: int, fail: Fail) -> None:
    heads = per_layer(header, "attention.head_count", n_layers)
    stated_kv = header.hyperparameter("attention.head_count_kv") is not None
    kv_heads = per_layer(header, "attention.head_count_kv", n_layers) if stated_kv else heads
    if not any(heads):
        if header.architecture not in _RECURRENT:
            raise fail("it has no attention heads (attention.head_count)")
        return
    if header.architecture in _MAMBA:
        raise fail(f"{header.architecture} has no attention, but attention.head_count")
    for n, n_kv in zip(heads, kv_heads, strict=True):
        if n_kv > n or (n_kv and n % n_kv):
            raise fail(f"{n} attention heads cannot share {n_kv} of keys and values")
    n_embd: int = header.hyperparameter("embedding_length")
    if heads[0] and n_embd % heads[0] and not _whole(header, "attention.key_length"):
        raise fail(f"embedding_length {n_embd} cannot be divided among {heads[0]} heads")
    if heads[0] > n_embd and not _whole(header, "attention.key_length"):
        raise fail(f"{heads[0]} heads are more than embedding_length {n_embd}")
    key, value = head_lengths(header, heads[0])
    if key != value and header.architecture in _HEADS_OF_ONE_LENGTH:
        raise fail(f"keys of {key} and values of {value}, which {header.architecture} cannot have")


def _check_rope(header: GGUFHeader, fail: Fail) -> None:
    scaling = header.hyperparameter("rope.scaling.type", "none")
    if scaling not in _ROPE_SCALINGS:
        raise fail(f"rope.scaling.type is {scaling!r}, not one of {', '.join(_ROPE_SCALINGS)}")
    heads = per_layer(header, "attention.head_count", 1)
    if not heads[0]:
        return
    key, _ = head_lengths(header, heads[0])
    rotated = header.hyperparameter("rope.dimension_count", key)
    architecture = header.architecture
    if architecture in _ROTATES_ITS_HEADS_WHOLE and rotated != key:
        raise fail(f"rope.dimension_count is {rotated} with heads of {key}")
    # A rotation of no dimensions never ends in ggml.
    rotates = architecture in known.EVERY_LAYER_ROTATES
    for each in (rotated, header.hyperparameter("rope.dimension_count_swa", rotated)):
        if rotates and (not each or each % 2 or each > max(key, *_swa(header))):
            raise fail(f"rope.dimension_count is {each} with heads of {key}")
    if "rope.dimension_count" in _own(header) and not rotates:
        lengths = [key, _whole(header, "attention.key_length_mla"), *_swa(header)]
        if rotated % 2 or rotated > max(lengths):
            raise fail(f"rope.dimension_count is {rotated} with heads of {key}")
    sections = header.hyperparameter("rope.dimension_sections")
    if isinstance(sections, list) and len(sections) > 4:
        raise fail(f"rope.dimension_sections has {len(sections)} values, not 4 or fewer")


def _check_states(header: GGUFHeader, fail: Fail) -> None:
    architecture = header.architecture
    if architecture not in _MAMBA:
        return
    names = ("conv_kernel", "inner_size", "state_size", "time_step_rank")
    missing = [name for name in names if header.hyperparameter(f"ssm.{name}") is None]
    if missing:
        raise fail(f"{architecture}.ssm.{missing[0]} is missing")
    inner = _whole(header, "ssm.inner_size")
    if architecture == "mamba" and inner != 2 * header.hyperparameter("embedding_length"):
        raise fail(f"ssm.inner_size is {inner}, not twice embedding_length")
    n_heads, groups = _whole(header, "ssm.time_step_rank"), _whole(header, "ssm.group_count")
    if architecture == "mamba2":
        if inner % n_heads:
            raise fail(f"ssm.inner_size {inner} cannot be divided among {n_heads} heads")
        if not groups or inner % groups or n_heads % groups:
            raise fail(f"ssm.group_count is {groups} with ssm.inner_size {inner}")


def head_lengths(header: GGUFHeader, n_heads: int) -> tuple[int, int]:
    """Length of a key and a value of one head, as llama.cpp derives them."""
    even = header.hyperparameter("embedding_length") // n_heads
    key = header.hyperparameter("attention.key_length", even)
    value = header.hyperparameter("attention.value_length", even)
    return key, value


def per_layer(header: GGUFHeader, name: str, n_layers: int) -> list[int]:
    """A hyperparameter as one number a layer; 0 where the file has none."""
    value = header.hyperparameter(name, 0)
    return list(value) if isinstance(value, list) and value else [int(value or 0)] * n_layers


def _own(header: GGUFHeader) -> set[str]:
    prefix = header.architecture + "."
    return {key[len(prefix) :] for key in header.metadata if key.startswith(prefix)}


def _swa(header: GGUFHeader) -> list[int]:
    return [_whole(header, "attention.key_length_swa")]


def _whole(header: GGUFHeader, name: str) -> int:
    value = header.hyperparameter(name, 0)
    return value if isinstance(value, int) else 0

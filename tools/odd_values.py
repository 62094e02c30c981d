"""Which other values each option of a configuration is tried with (tools/make_odd_configs.py)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

Values = dict[str, Any]

_ACTIVATIONS = (
    *("gelu", "gelu_new", "gelu_pytorch_tanh", "gelu_fast"),
    *("silu", "relu", "relu2", "quick_gelu", "tanh"),
)
_ACTIVATION_NAMES = (
    *("hidden_act", "hidden_activation", "activation_function", "activation"),
    *("mlp_hidden_act", "mamba_hidden_act"),
)
# What no computation depends on, and the sizes that all recipes share.
_LEFT_ALONE = {
    *("architectures", "model_type", "dtype", "transformers_version", "id2label", "label2id"),
    *("vision_config", "audio_config", "text_config", "rope_parameters", "per_layer_config"),
    *("vocab_size", "vocab_size_per_layer_input", "hidden_size", "n_embd", "d_model", "dim"),
    *("num_hidden_layers", "n_layer", "n_layers", "num_attention_heads", "n_head", "n_heads"),
    *("max_position_embeddings", "n_positions", "max_seq_len", "pretraining_tp", "problem_type"),
    *("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"),
    *("use_cache", "output_attentions", "output_hidden_states", "return_dict", "is_decoder"),
    *("is_encoder_decoder", "chunk_size_feed_forward", "output_router_logits", "chunk_size"),
    *("use_mambapy", "use_mamba_kernels", "use_falcon_mambapy", "residual_in_fp32"),
}
_LEFT_ALONE_PARTS = ("drop", "initializer", "aux", "jitter", "z_loss", "classifier", "mtp", "label")
# For options that are null in the recipes.
_INSTEAD_OF_NULL: dict[str, Any] = {
    "sliding_window": 8,
    "head_dim": 12,
    "attn_logit_softcapping": 2.0,
    "final_logit_softcapping": 1.5,
    "clip_qkv": 0.5,
    "n_inner": 40,
    "logit_scale": 0.5,
    "ffn_hidden_size": 40,
    "num_kv_heads": 1,
    "use_bidirectional_attention": True,
}
_NAMED: dict[str, tuple[Any, ...]] = {
    "head_dim": (6, 12, 16, 24),
    "mlp_only_layers": ([0],),
    "time_step_limit": ([0.0, 0.5],),
    "position_embedding_type": ("relative_key", "nope", "rope", "absolute"),
    "scoring_func": ("softmax", "sigmoid"),
    "topk_method": ("greedy", "group_limited_greedy", "noaux_tc"),
}
# What an option is pointless without.
_ALONG: dict[str, Values] = {
    "topk_method": {"n_group": 2, "topk_group": 1},
    "use_sliding_window": {"sliding_window": 8, "max_window_layers": 1},
    "n_group": {"topk_group": 1},
    "sliding_window_pattern": {"layer_types": None},
}
_YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
_LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
_LINEAR = {"rope_type": "linear", "factor": 3.0}
_HALF = {"partial_rotary_factor": 0.5}
_ROPES: dict[str, Values] = {
    "theta": {"rope_type": "default", "rope_theta": 500.0},
    "linear": _LINEAR,
    "dynamic": {"rope_type": "dynamic", "factor": 2.0},
    "llama3": _LLAMA3,
    "proportional": {"rope_type": "proportional", **_HALF},
    "yarn": _YARN,
    "yarn-factor": {**_YARN, "attention_factor": 1.4},
    "yarn-betas": {**_YARN, "beta_fast": 8.0, "beta_slow": 0.5},
    "yarn-scales": {**_YARN, "mscale": 0.7, "mscale_all_dim": 1.2},
    "yarn-equal-scales": {**_YARN, "mscale": 1.0, "mscale_all_dim": 1.0},
    "yarn-one-scale": {**_YARN, "mscale": 0.7},
    "yarn-exact-bounds": {**_YARN, "truncate": False},
    "yarn-no-context": {"rope_type": "yarn", "factor": 4.0},
    "half": {"rope_type": "default", **_HALF},
    "half-yarn": {**_YARN, **_HALF},
    "half-llama3": {**_LLAMA3, **_HALF},
    "half-linear": {**_LINEAR, **_HALF},
    "longrope": {"rope_type": "longrope", "factor": 4.0},
    "longrope-factor": {"rope_type": "longrope", "attention_factor": 1.3},
}


def changes(config: Values) -> Iterator[tuple[str, Values]]:
    """A name for each change, and the values that it sets. ``config`` is a whole configuration."""
    for name, value in sorted(config.items()):
        left_alone = name in _LEFT_ALONE or name.startswith("_")
        if left_alone or any(part in name for part in _LEFT_ALONE_PARTS):
            continue
        for other in _others(name, value, config):
            if other != value:
                yield f"{name}={other}", {name: other, **_ALONG.get(name, {})}
        if value is not None:
            yield f"{name}=null", {name: None}
    yield from _windows(config)
    yield from _ropes(config)


def _others(name: str, value: Any, config: Values) -> tuple[Any, ...]:
    if isinstance(value, bool):
        return (not value,)
    if name in _ACTIVATION_NAMES:
        return _ACTIVATIONS
    if name in ("num_key_value_heads", "num_kv_heads"):
        return (1, 2, config.get("num_attention_heads") or 4)
    if name in _NAMED:
        return _NAMED[name]
    if value is None:
        return (_INSTEAD_OF_NULL[name],) if name in _INSTEAD_OF_NULL else ()
    if isinstance(value, int | float) and "eps" in name:
        return (0.05,)
    if isinstance(value, float):
        return (value * 1.6 + 0.01, value * 0.5)
    if isinstance(value, int):
        return (value * 2, value + 1, 1, 0, *([8] if "window" in name else []))
    return _other_lists(name, value) if isinstance(value, list) else ()


def _other_lists(name: str, value: list[Any]) -> tuple[Any, ...]:
    n = len(value)
    if name == "layer_types":
        if not set(value) <= {"full_attention", "sliding_attention"}:
            return (value[::-1],)
        full, sliding = "full_attention", "sliding_attention"
        return ([full] * n, [sliding] * n, _turns(full, sliding, n), _turns(sliding, full, n))
    if name == "mlp_layer_types":
        return (["dense"] * n, ["sparse"] * n, ["sparse"] + ["dense"] * (n - 1))
    if name == "no_rope_layers":
        return ([0] * n, [1] * n)
    if value and all(isinstance(item, float) for item in value):
        return ([item * 1.5 for item in value],)
    return ()


def _turns(first: str, second: str, n: int) -> list[str]:
    return list(itertools.islice(itertools.cycle((first, second)), n))


def _windows(config: Values) -> Iterator[tuple[str, Values]]:
    if "sliding_window" not in config:
        return
    window: Values = {"sliding_window": 8}
    if "use_sliding_window" in config:
        window["use_sliding_window"] = True
    if "max_window_layers" in config:
        for first in (0, 1):
            values = {**window, "max_window_layers": first, "layer_types": None}
            yield f"window-from-{first}", values
    types = config.get("layer_types") or []
    if types and set(types) <= {"full_attention", "sliding_attention"}:
        for i, others in enumerate(_other_lists("layer_types", types)):
            yield f"window-{i}", {**window, "layer_types": others}


def _ropes(config: Values) -> Iterator[tuple[str, Values]]:
    found = config.get("rope_parameters")
    if not isinstance(found, dict):
        return
    kinds = [kind for kind in ("full_attention", "sliding_attention") if kind in found]
    for name, settings in _ROPES.items():
        for kind in kinds or [None]:
            base = found[kind] if kind else found
            rope = {"rope_theta": 10_000.0, **_kept(base), **settings}
            along: Values = {}
            if rope["rope_type"] == "longrope":
                rope |= _factors(config, rope)
                if "original_max_position_embeddings" in config:
                    along["original_max_position_embeddings"] = 16
            values = {**found, kind: rope} if kind else rope
            if values != found:
                yield f"rope-{name}-{kind or 'all'}", {"rope_parameters": values, **along}


def _kept(base: Values) -> Values:
    names = ("partial_rotary_factor", "mrope_section", "llama_4_scaling_beta")
    return {name: base[name] for name in names if name in base}


def _factors(config: Values, rope: Values) -> Values:
    heads = config.get("num_attention_heads") or 1
    head_dim = config.get("head_dim") or config.get("hidden_size", 0) // heads
    rotated = config.get("qk_rope_head_dim") or head_dim * rope.get("partial_rotary_factor", 1)
    return {
        "long_factor": [1 + 0.7 * i for i in range(int(rotated) // 2)],
        "short_factor": [1 + 0.1 * i for i in range(int(rotated) // 2)],
        "original_max_position_embeddings": 16,
    }

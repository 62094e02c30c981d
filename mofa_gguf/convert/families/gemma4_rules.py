"""What Gemma 4's tensors become: by what a layer attends to, and by the parts that it has."""

from __future__ import annotations

from mofa_gguf.convert.families.base import Rule
from mofa_gguf.convert.families.decoder import EMBEDDINGS, OUTPUT
from mofa_gguf.convert.families.gemma2 import FOUR_NORMS
from mofa_gguf.convert.families.parts import LAYER, matrix, norm
from mofa_gguf.convert.families.routed import of_kind

_ATTENTION = f"{LAYER}.self_attn"
SLIDING, FULL = "sliding_attention", "full_attention"
PER_LAYER, ROUTED = "embeddings for each layer", "layer with experts"
NARROW, WIDE = "narrow feed-forward", "wide feed-forward"


def with_keys(kind: str) -> str:
    """A layer of the kind with keys of its own."""
    return f"{kind} with keys"


def with_values(kind: str) -> str:
    """A layer of the kind with values of its own."""
    return f"{kind} with values"


def _attention(kind: str, queries: str, keys: str, size: str) -> tuple[Rule, ...]:
    """The rules of layers that attend to all or to a window."""
    return (
        *of_kind(
            kind,
            matrix(f"{_ATTENTION}.q_proj", "blk.{i}.attn_q", queries, "embd"),
            matrix(f"{_ATTENTION}.o_proj", "blk.{i}.attn_output", "embd", queries),
            *norm(f"{_ATTENTION}.q_norm", "blk.{i}.attn_q_norm", size),
        ),
        *of_kind(
            with_keys(kind),
            matrix(f"{_ATTENTION}.k_proj", "blk.{i}.attn_k", keys, "embd"),
            *norm(f"{_ATTENTION}.k_norm", "blk.{i}.attn_k_norm", size),
        ),
        *of_kind(with_values(kind), matrix(f"{_ATTENTION}.v_proj", "blk.{i}.attn_v", keys, "embd")),
    )


def _mlp(kind: str, width: str) -> tuple[Rule, ...]:
    return of_kind(
        kind,
        matrix(f"{LAYER}.mlp.gate_proj", "blk.{i}.ffn_gate", width, "embd"),
        matrix(f"{LAYER}.mlp.up_proj", "blk.{i}.ffn_up", width, "embd"),
        matrix(f"{LAYER}.mlp.down_proj", "blk.{i}.ffn_down", "embd", width),
    )


RULES = (
    *EMBEDDINGS,
    *of_kind(
        PER_LAYER,
        matrix("model.embed_tokens_per_layer", "per_layer_token_embd", "vocab", "all_layers_input"),
        matrix(
            "model.per_layer_model_projection",
            "per_layer_model_proj",
            "all_layers_input",
            "embd",
        ),
        *norm("model.per_layer_projection_norm", "per_layer_proj_norm", "layer_input"),
    ),
    *FOUR_NORMS,
    *_attention(SLIDING, "q", "kv", "head_dim"),
    *_attention(FULL, "q_full", "kv_full", "head_dim_full"),
    *_mlp(NARROW, "ff"),
    *_mlp(WIDE, "ff_twice"),
    *of_kind(
        ROUTED,
        matrix(f"{LAYER}.router.proj", "blk.{i}.ffn_gate_inp", "experts", "embd"),
        Rule(f"{LAYER}.router.scale", "blk.{i}.ffn_gate_inp.scale", ("embd",)),
        Rule(f"{LAYER}.router.per_expert_scale", "blk.{i}.ffn_down_exps.scale", ("experts",)),
        Rule(
            f"{LAYER}.experts.gate_up_proj",
            "blk.{i}.ffn_gate_up_exps.weight",
            ("experts", "ff_exp_twice", "embd"),
        ),
        Rule(
            f"{LAYER}.experts.down_proj",
            "blk.{i}.ffn_down_exps.weight",
            ("experts", "embd", "ff_exp"),
        ),
        *norm(f"{LAYER}.pre_feedforward_layernorm_2", "blk.{i}.pre_ffw_norm_2"),
        *norm(f"{LAYER}.post_feedforward_layernorm_1", "blk.{i}.post_ffw_norm_1"),
        *norm(f"{LAYER}.post_feedforward_layernorm_2", "blk.{i}.post_ffw_norm_2"),
    ),
    *of_kind(
        PER_LAYER,
        matrix(f"{LAYER}.per_layer_input_gate", "blk.{i}.inp_gate", "layer_input", "embd"),
        matrix(f"{LAYER}.per_layer_projection", "blk.{i}.proj", "embd", "layer_input"),
        *norm(f"{LAYER}.post_per_layer_input_norm", "blk.{i}.post_norm"),
    ),
    Rule(f"{LAYER}.layer_scalar", "blk.{i}.layer_output_scale.weight", ("one",), optional=True),
    *OUTPUT,
)

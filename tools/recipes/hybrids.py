"""Tiny checkpoints of models that remember otherwise than by attention, as data, seeded by name.

On top of NARROW; in part of the layers or in all of them.
"""

from __future__ import annotations

from recipes.further import QWEN_VISION
from recipes.recipe import Entry, rope

_SHORT = {"n_tokens": 16}
_LFM2 = {"num_hidden_layers": 3, "layer_types": ["conv", "full_attention", "conv"]}
_NETS = {
    "num_hidden_layers": 3,
    "layer_types": ["linear_attention", "full_attention", "linear_attention"],
    "head_dim": 16,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
}
_ONE_SHARED = {
    "num_experts": 3,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
}
_STATES = {"mamba_d_state": 8, "mamba_n_heads": 4, "mamba_n_groups": 2}
_GRANITE4 = {
    **_STATES,
    "num_hidden_layers": 3,
    "layer_types": ["linear_attention", "full_attention", "linear_attention"],
    "shared_intermediate_size": 24,
    "intermediate_size": 16,
    "embedding_multiplier": 3.0,
    "logits_scaling": 2.5,
    "residual_multiplier": 0.4,
    "attention_multiplier": 0.2,
    "tie_word_embeddings": True,
}
_NEMOTRON = {
    "head_dim": 16,
    "mamba_num_heads": 4,
    "mamba_head_dim": 8,
    "n_groups": 2,
    "ssm_state_size": 8,
    "num_hidden_layers": None,
}
_FALCON_FACTORS = {
    "attention_in_multiplier": 1.3,
    "attention_out_multiplier": 0.7,
    "embedding_multiplier": 2.5,
    "key_multiplier": 0.6,
    "lm_head_multiplier": 0.4,
    "mlp_multipliers": [0.8, 1.2],
    "ssm_in_multiplier": 1.1,
    "ssm_multipliers": [0.9, 1.4, 0.7, 1.2, 0.5],
    "ssm_out_multiplier": 0.9,
}
_FALCON_H1 = {
    **_STATES,
    **_FALCON_FACTORS,
    "head_dim": 16,
    "mamba_d_ssm": 32,
    "mamba_norm_before_gate": False,
    "intermediate_size": 32,
}
_THIRDS = {"rope_parameters": rope(partial_rotary_factor=0.5, mrope_section=[2, 1, 1])}

HYBRIDS: dict[str, Entry] = {
    "lfm2": (
        "Lfm2ForCausalLM",
        {**_LFM2, "block_multiple_of": 16, "block_ffn_dim_multiplier": 1.1},
        _SHORT,
    ),
    "lfm2-moe": (
        "Lfm2MoeForCausalLM",
        {**_LFM2, "num_dense_layers": 1, "num_experts": 4, "moe_intermediate_size": 16},
        _SHORT,
    ),
    "qwen3-next": (
        "Qwen3NextForCausalLM",
        {**_NETS, **_ONE_SHARED, "rope_parameters": rope(partial_rotary_factor=0.5)},
        _SHORT,
    ),
    "qwen35": (
        "Qwen3_5ForCausalLM",
        {**_NETS, **_THIRDS, "intermediate_size": 32, "tie_word_embeddings": True},
        _SHORT,
    ),
    "qwen35-multimodal": (
        "Qwen3_5ForConditionalGeneration",
        {
            "text_config": {
                **_NETS,
                **_THIRDS,
                "intermediate_size": 32,
                "num_hidden_layers": 4,
                "layer_types": None,
                "linear_num_key_heads": 1,
            },
            "vision_config": {**QWEN_VISION, "num_position_embeddings": 16},
        },
        _SHORT,
    ),
    "qwen35-moe": ("Qwen3_5MoeForCausalLM", {**_NETS, **_THIRDS, **_ONE_SHARED}, _SHORT),
    "mamba2": (
        "Mamba2ForCausalLM",
        {
            "num_heads": 8,
            "head_dim": 8,
            "n_groups": 2,
            "state_size": 8,
            "tie_word_embeddings": True,
        },
        _SHORT,
    ),
    "granite-hybrid": (
        "GraniteMoeHybridForCausalLM",
        {**_GRANITE4, "num_local_experts": 3, "position_embedding_type": None},
        _SHORT,
    ),
    "granite-hybrid-dense": (
        "GraniteMoeHybridForCausalLM",
        {**_GRANITE4, "num_local_experts": 0, "position_embedding_type": "rope"},
        _SHORT,
    ),
    "granite4-dense": (
        "GraniteMoeHybridForCausalLM",
        {
            **_GRANITE4,
            "num_local_experts": 0,
            "position_embedding_type": "rope",
            "layer_types": ["full_attention"] * 2,
            "num_hidden_layers": 2,
        },
        _SHORT,
    ),
    "nemotron-h": (
        "NemotronHForCausalLM",
        {
            **_NEMOTRON,
            "layers_block_type": ["linear_attention", "mlp", "full_attention", "linear_attention"],
            "tie_word_embeddings": True,
        },
        _SHORT,
    ),
    "nemotron-h-moe": (
        "NemotronHForCausalLM",
        {
            **_NEMOTRON,
            "layers_block_type": ["linear_attention", "moe", "full_attention", "moe"],
            "n_routed_experts": 4,
            "moe_intermediate_size": 16,
            "moe_shared_expert_intermediate_size": 24,
            "moe_latent_size": 20,
            "routed_scaling_factor": 1.7,
        },
        _SHORT,
    ),
    "falcon-h1": ("FalconH1ForCausalLM", {**_FALCON_H1, "mamba_rms_norm": True}, _SHORT),
    "falcon-h1-tied": ("FalconH1ForCausalLM", {**_FALCON_H1, "tie_word_embeddings": True}, _SHORT),
    "jamba": (
        "JambaForCausalLM",
        {
            "num_hidden_layers": 3,
            "intermediate_size": 24,
            "num_experts": 3,
            "attn_layer_period": 3,
            "attn_layer_offset": 1,
            "mamba_d_state": 8,
            "mamba_dt_rank": 3,
            "use_mamba_kernels": False,
        },
        _SHORT,
    ),
}

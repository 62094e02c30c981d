"""Tiny checkpoints of further models with experts, as data, seeded by name; on top of NARROW."""

from __future__ import annotations

from recipes.further import QWEN_VISION
from recipes.recipe import Entry, rope

_SHORT = {"n_tokens": 16}
_LLAMA4_TEXT = {
    "head_dim": 8,
    "intermediate_size": 16,
    "intermediate_size_mlp": 40,
    "num_local_experts": 3,
    "num_experts_per_tok": 1,
    "num_hidden_layers": 4,
    "interleave_moe_layer_step": 2,
    "rope_parameters": rope(
        "llama3",
        factor=8.0,
        low_freq_factor=1.0,
        high_freq_factor=4.0,
        original_max_position_embeddings=16,
    ),
}
_LLAMA4_VISION = {
    "hidden_size": 8,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
    "vision_output_dim": 8,
    "projector_input_dim": 8,
    "projector_output_dim": 8,
}
_ROUTED = {
    "moe_intermediate_size": 16,
    "n_routed_experts": 6,
    "n_shared_experts": 2,
    "first_k_dense_replace": 1,
    "routed_scaling_factor": 1.7,
}

MIXTURES: dict[str, Entry] = {
    "qwen3-vl-moe": (
        "Qwen3VLMoeForConditionalGeneration",
        {
            "text_config": {
                "head_dim": 16,
                "num_experts": 4,
                "moe_intermediate_size": 24,
                "rope_parameters": rope(mrope_section=[3, 3, 2]),
            },
            "vision_config": {
                **QWEN_VISION,
                "deepstack_visual_indexes": [0],
                "num_position_embeddings": 16,
            },
        },
        _SHORT,
    ),
    "glm4-moe": (
        "Glm4MoeForCausalLM",
        {**_ROUTED, "n_group": 3, "topk_group": 2, "attention_bias": True, "head_dim": 16},
        _SHORT,
    ),
    "glm4-moe-normed": (
        "Glm4MoeForCausalLM",
        {**_ROUTED, "use_qk_norm": True, "norm_topk_prob": False, "tie_word_embeddings": True},
        {**_SHORT, "original_format": False},
    ),
    "glm4-moe-lite": (
        "Glm4MoeLiteForCausalLM",
        {
            **_ROUTED,
            "num_attention_heads": 3,
            "num_key_value_heads": 3,
            "kv_lora_rank": 16,
            "q_lora_rank": 20,
            "qk_nope_head_dim": 12,
            "qk_rope_head_dim": 4,
            "v_head_dim": 16,
            "num_hidden_layers": 3,
            "mlp_layer_types": ["dense", "sparse", "sparse"],
        },
        _SHORT,
    ),
    "llama4": ("Llama4ForCausalLM", {**_LLAMA4_TEXT, "tie_word_embeddings": True}, _SHORT),
    "llama4-multimodal": (
        "Llama4ForConditionalGeneration",
        {
            "text_config": {**_LLAMA4_TEXT, "interleave_moe_layer_step": 1},
            "vision_config": _LLAMA4_VISION,
        },
        _SHORT,
    ),
    "dots1": (
        "Dots1ForCausalLM",
        {**_ROUTED, "num_key_value_heads": 4, "norm_topk_prob": True, "n_group": 1},
        _SHORT,
    ),
    "ernie4-5-moe": (
        "Ernie4_5_MoeForCausalLM",
        {
            "moe_num_experts": 4,
            "moe_k": 2,
            "moe_intermediate_size": 16,
            "moe_num_shared_experts": 2,
            "tie_word_embeddings": True,
        },
        _SHORT,
    ),
    "minimax-m2": (
        "MiniMaxM2ForCausalLM",
        {
            "head_dim": 16,
            "rotary_dim": 8,
            "num_local_experts": 4,
            "intermediate_size": 16,
        },
        _SHORT,
    ),
    "hunyuan-moe": (
        "HunYuanMoEV1ForCausalLM",
        {
            "num_experts": 3,
            "moe_topk": [2, 2],
            "intermediate_size": 24,
            "head_dim": 16,
            "tie_word_embeddings": True,
            "rope_parameters": rope("dynamic", alpha=20.0, factor=1.0),
        },
        _SHORT,
    ),
}

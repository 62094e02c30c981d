"""Tiny checkpoints of Gemma 3n and 4, as data, seeded by name; on top of DENSE_NARROW."""

from __future__ import annotations

from recipes.recipe import Entry, rope

_SHORT = {"n_tokens": 20}
_GEMMA4 = {
    "head_dim": 8,
    "global_head_dim": 16,
    "sliding_window": 6,
    "num_attention_heads": 4,
    "tie_word_embeddings": True,
    "final_logit_softcapping": 1.5,
    "vocab_size_per_layer_input": 320,
    "rope_parameters": {
        "sliding_attention": rope(theta=3000.0),
        "full_attention": rope("proportional", 50000.0, partial_rotary_factor=0.5),
    },
}

GEMMAS: dict[str, Entry] = {
    "gemma4": (
        "Gemma4ForCausalLM",
        {
            **_GEMMA4,
            "hidden_size_per_layer_input": 8,
            "num_hidden_layers": 5,
            "intermediate_size": 24,
            "layer_types": [
                "full_attention",
                "sliding_attention",
                "full_attention",
                "sliding_attention",
                "full_attention",
            ],
            "num_kv_shared_layers": 2,
            "use_double_wide_mlp": True,
        },
        _SHORT,
    ),
    "gemma4-moe-multimodal": (
        "Gemma4ForConditionalGeneration",
        {
            "text_config": {
                **_GEMMA4,
                "hidden_size_per_layer_input": 0,
                "num_hidden_layers": 3,
                "intermediate_size": 24,
                "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
                "attention_k_eq_v": True,
                "num_global_key_value_heads": 1,
                "enable_moe_block": True,
                "num_experts": 4,
                "top_k_experts": 2,
                "moe_intermediate_size": 16,
                "use_bidirectional_attention": "vision",
            },
            "vision_config": {
                "hidden_size": 8,
                "intermediate_size": 8,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "num_key_value_heads": 2,
                "head_dim": 4,
                "patch_size": 4,
                "position_embedding_size": 16,
            },
            "audio_config": None,
        },
        _SHORT,
    ),
    "gemma3n": (
        "Gemma3nForCausalLM",
        {
            "hidden_size": 16,
            "num_attention_heads": 4,
            "head_dim": 8,
            # llama.cpp's variance of fewer gates differs too much from transformers'.
            "intermediate_size": 640,
            "layer_types": ["sliding_attention", "full_attention"],
            "sliding_window": 6,
            "num_kv_shared_layers": 0,
            "activation_sparsity_pattern": [0.95, 0.95],
            "vocab_size_per_layer_input": 32,
            "tie_word_embeddings": True,
            "rope_parameters": {
                "sliding_attention": rope(theta=3000.0),
                "full_attention": rope(theta=50000.0),
            },
        },
        _SHORT,
    ),
}

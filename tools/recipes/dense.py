"""Tiny checkpoints of dense decoders, as data: name -> (class, configuration, arguments of Recipe).

The configurations come on top of recipe.DENSE_NARROW. Windows, stretched contexts and the
like are short enough for a text of 24 tokens to show them.
"""

from __future__ import annotations

from recipes.recipe import Entry, rope

_WINDOW = {"sliding_window": 8, "num_hidden_layers": 3, "intermediate_size": 32}
_CAPS = {"attn_logit_softcapping": 2.0, "final_logit_softcapping": 1.5}


_GEMMA3_TEXT = {
    **_WINDOW,
    "head_dim": 16,
    "query_pre_attn_scalar": 16,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    "tie_word_embeddings": True,
    "rope_parameters": {
        "full_attention": rope("linear", 50000.0, factor=4.0),
        "sliding_attention": rope(theta=3000.0),
    },
}
_GEMMA3_VISION = {
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
_LONGROPE = rope(
    "longrope",
    long_factor=[1.0, 1.5, 2.5, 4.0],
    short_factor=[1.0, 1.05, 1.1, 1.3],
)

_ALL_SCALES = {
    "embedding_multiplier": 3.0,
    "logits_scaling": 2.5,
    "residual_multiplier": 0.4,
    "attention_multiplier": 0.2,
}

DENSE: dict[str, Entry] = {
    "qwen3": ("Qwen3ForCausalLM", {"head_dim": 16, "tie_word_embeddings": True}, {}),
    "gemma": (
        "GemmaForCausalLM",
        {"head_dim": 16, "num_key_value_heads": 1, "tie_word_embeddings": True},
        {},
    ),
    "gemma2": (
        "Gemma2ForCausalLM",
        {
            **_WINDOW,
            **_CAPS,
            "head_dim": 16,
            "query_pre_attn_scalar": 16,
            "tie_word_embeddings": True,
        },
        {},
    ),
    "gemma3": ("Gemma3ForCausalLM", _GEMMA3_TEXT, {}),
    "gemma3-multimodal": (
        "Gemma3ForConditionalGeneration",
        {"text_config": _GEMMA3_TEXT, "vision_config": _GEMMA3_VISION, "mm_tokens_per_image": 4},
        {},
    ),
    "mistral3-multimodal": (
        "Mistral3ForConditionalGeneration",
        {
            "text_config": {"model_type": "mistral", "head_dim": 16, "sliding_window": None},
            "vision_config": {
                "model_type": "pixtral",
                "hidden_size": 8,
                "intermediate_size": 8,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "head_dim": 4,
                "image_size": 28,
                "patch_size": 14,
            },
        },
        {},
    ),
    # The whole text is within the original context, so that the short factors count.
    "phi3": (
        "Phi3ForCausalLM",
        {
            "rope_parameters": {**_LONGROPE, "original_max_position_embeddings": 512},
            "max_position_embeddings": 2048,
            "original_max_position_embeddings": 512,
        },
        {},
    ),
    "phi3-long": (
        "Phi3ForCausalLM",
        {
            "rope_parameters": {
                **_LONGROPE,
                "long_factor": [1.0, 1.5, 4.0],
                "short_factor": [1.0, 1.1, 1.3],
                "original_max_position_embeddings": 16,
                "partial_rotary_factor": 0.75,
            },
            "original_max_position_embeddings": 16,
            "tie_word_embeddings": True,
        },
        {},
    ),
    "llama-longrope": (
        "LlamaForCausalLM",
        {
            "rope_parameters": {
                **_LONGROPE,
                "attention_factor": 1.2,
                "original_max_position_embeddings": 16,
            },
        },
        {},
    ),
    "phi": ("PhiForCausalLM", {"num_key_value_heads": 4}, {}),
    "smollm3": (
        "SmolLM3ForCausalLM",
        {"num_hidden_layers": 4, "intermediate_size": 32, "tie_word_embeddings": True},
        {},
    ),
    "olmo": ("OlmoForCausalLM", {"clip_qkv": 0.5}, {}),
    "olmo2": ("Olmo2ForCausalLM", {}, {}),
    "olmo3": (
        "Olmo3ForCausalLM",
        {
            **_WINDOW,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
            "rope_parameters": {
                "full_attention": rope("yarn", factor=4.0, original_max_position_embeddings=32),
                "sliding_attention": rope(),
            },
        },
        {},
    ),
    "granite": (
        "GraniteForCausalLM",
        {**_ALL_SCALES, "attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True},
        {},
    ),
    "cohere": ("CohereForCausalLM", {"logit_scale": 0.5, "tie_word_embeddings": True}, {}),
    "cohere2": (
        "Cohere2ForCausalLM",
        {
            **_WINDOW,
            "logit_scale": 0.5,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
            "tie_word_embeddings": True,
        },
        {},
    ),
    "glm4": (
        "Glm4ForCausalLM",
        {"head_dim": 16, "intermediate_size": 32, "attention_bias": True},
        {},
    ),
    "stablelm": ("StableLmForCausalLM", {"use_qkv_bias": True}, {}),
    "stablelm-parallel": (
        "StableLmForCausalLM",
        {
            "qk_layernorm": True,
            "use_parallel_residual": True,
            "rope_parameters": rope(partial_rotary_factor=0.5),
        },
        {},
    ),
    "starcoder2": ("Starcoder2ForCausalLM", {"tie_word_embeddings": True}, {}),
    "gpt2": (
        "GPT2LMHeadModel",
        {
            "n_embd": 32,
            "n_layer": 2,
            "n_head": 4,
            "n_positions": 64,
            "n_inner": 48,
            "tie_word_embeddings": True,
        },
        {},
    ),
    "gpt-neox": ("GPTNeoXForCausalLM", {"rope_parameters": rope(partial_rotary_factor=0.5)}, {}),
    "gpt-neox-serial": (
        "GPTNeoXForCausalLM",
        {
            "rope_parameters": rope(partial_rotary_factor=0.25),
            "use_parallel_residual": False,
            "hidden_act": "gelu_new",
        },
        {},
    ),
    "falcon": ("FalconForCausalLM", {"tie_word_embeddings": True, "ffn_hidden_size": 48}, {}),
    "falcon-groups": (
        "FalconForCausalLM",
        {
            "new_decoder_architecture": True,
            "num_kv_heads": 2,
            "tie_word_embeddings": True,
            "ffn_hidden_size": 48,
        },
        {},
    ),
    "bloom": ("BloomForCausalLM", {"n_layer": 2, "n_head": 4, "tie_word_embeddings": True}, {}),
}

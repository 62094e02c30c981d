"""Tiny checkpoints of models with experts and of other kinds, as data; see dense.py.

Besides arguments of Recipe, an entry's last part may hold ``packing``: how weights are stored, by
tools/packed_weights.py.
"""

from __future__ import annotations

from recipes.recipe import Entry

_BERT = {"type_vocab_size": 1, "pad_token_id": 1, "max_position_embeddings": 66}
_LATENT = {
    "moe_intermediate_size": 16,
    "n_shared_experts": 2,
    "first_k_dense_replace": 1,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 4,
    "v_head_dim": 12,
    "num_key_value_heads": 4,
    "routed_scaling_factor": 1.7,
}
_YARN = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 32,
}
_DEEPSEEK_V3 = {
    **_LATENT,
    "n_routed_experts": 6,
    "n_group": 3,
    "topk_group": 2,
    "q_lora_rank": 20,
    "norm_topk_prob": True,
    "rope_parameters": {**_YARN, "mscale": 1.0, "mscale_all_dim": 1.0},
}
_GPT_OSS = {
    "intermediate_size": 32,
    "head_dim": 16,
    "num_local_experts": 3,
    "sliding_window": 8,
    "rope_parameters": _YARN,
}

EXPERTS: dict[str, Entry] = {
    "mixtral": ("MixtralForCausalLM", {"num_local_experts": 3}, {}),
    "mixtral-fused": (
        "MixtralForCausalLM",
        {"num_local_experts": 3, "head_dim": 16},
        {"original_format": False},
    ),
    "qwen2-moe": (
        "Qwen2MoeForCausalLM",
        {
            "num_experts": 4,
            "moe_intermediate_size": 24,
            "shared_expert_intermediate_size": 40,
            "norm_topk_prob": False,
        },
        {},
    ),
    "qwen3-moe": (
        "Qwen3MoeForCausalLM",
        {
            "num_experts": 5,
            "moe_intermediate_size": 24,
            "norm_topk_prob": True,
            "head_dim": 16,
            "tie_word_embeddings": True,
        },
        {},
    ),
    "granite-moe": (
        "GraniteMoeForCausalLM",
        {
            "num_local_experts": 3,
            "embedding_multiplier": 3.0,
            "logits_scaling": 2.5,
            "residual_multiplier": 0.4,
            "attention_multiplier": 0.2,
        },
        {},
    ),
    "granite-moe-shared": (
        "GraniteMoeSharedForCausalLM",
        {
            "num_local_experts": 2,
            "shared_intermediate_size": 24,
            "logits_scaling": 2.5,
            "tie_word_embeddings": True,
        },
        {},
    ),
    "olmoe": (
        "OlmoeForCausalLM",
        {"num_experts": 3, "num_key_value_heads": 4, "intermediate_size": 32},
        {},
    ),
    "roberta": ("RobertaModel", _BERT, {"tokenizer": "roberta"}),
    "xlm-roberta": ("XLMRobertaModel", _BERT, {"tokenizer": "unigram"}),
    "nomic-bert": (
        "NomicBertModel",
        {"type_vocab_size": 2, "max_position_embeddings": 64},
        {"tokenizer": "wordpiece"},
    ),
    "qwen3-embedding": (
        "Qwen3Model",
        {"head_dim": 16, "tie_word_embeddings": True},
        {"pooling": "lasttoken"},
    ),
    "gemma-embedding": (
        "Gemma3TextModel",
        {
            "head_dim": 16,
            "query_pre_attn_scalar": 16,
            "num_hidden_layers": 3,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
            "sliding_window": 8,
            "use_bidirectional_attention": True,
            "rope_parameters": {
                "full_attention": {"rope_type": "default", "rope_theta": 50000.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 3000.0},
            },
        },
        {"pooling": "mean_tokens", "dense": [40, 32]},
    ),
    "mamba": (
        "MambaForCausalLM",
        {
            "intermediate_size": 64,
            "state_size": 8,
            "time_step_rank": 3,
            "tie_word_embeddings": True,
        },
        {},
    ),
    "falcon-mamba": (
        "FalconMambaForCausalLM",
        {
            "intermediate_size": 64,
            "state_size": 8,
            "time_step_rank": 3,
            "mixer_rms_eps": 1e-5,
            "tie_word_embeddings": True,
        },
        {},
    ),
    "deepseek-v2": (
        "DeepseekV2ForCausalLM",
        {**_LATENT, "n_routed_experts": 4, "q_lora_rank": None},
        {},
    ),
    "deepseek-v3": ("DeepseekV3ForCausalLM", _DEEPSEEK_V3, {}),
    "deepseek-v3-fp8": (
        "DeepseekV3ForCausalLM",
        {**_DEEPSEEK_V3, "n_group": 1, "topk_group": 1},
        {"packing": "fp8"},
    ),
    "gpt-oss": ("GptOssForCausalLM", _GPT_OSS, {}),
    "gpt-oss-mxfp4": ("GptOssForCausalLM", _GPT_OSS, {"packing": "mxfp4"}),
}

"""Tiny checkpoints of further families, as data; each seeded by its name, whatever else is here.

The form is that of dense.py.
"""

from __future__ import annotations

from typing import Any

from recipes.recipe import Entry


def _rope(**settings: Any) -> dict[str, Any]:
    return {"rope_type": "default", "rope_theta": 10000.0, **settings}


QWEN_VISION = {
    "depth": 1,
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_heads": 2,
    "patch_size": 14,
    "out_hidden_size": 32,
}
_SECTIONS = {"rope_parameters": _rope(mrope_section=[2, 1, 1])}

_MINISTRAL3 = {
    "head_dim": 16,
    "rope_parameters": _rope(
        rope_type="yarn",
        factor=4.0,
        original_max_position_embeddings=8,
        beta_fast=32.0,
        beta_slow=1.0,
        mscale=1.0,
        mscale_all_dim=1.0,
        llama_4_scaling_beta=0.3,
    ),
}
_PIXTRAL = {
    "model_type": "pixtral",
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "head_dim": 4,
    "image_size": 28,
    "patch_size": 14,
}

FURTHER: dict[str, Entry] = {
    "hunyuan-dense": (
        "HunYuanDenseV1ForCausalLM",
        {"head_dim": 16, "tie_word_embeddings": True},
        {"n_tokens": 16},
    ),
    "apertus": (
        "ApertusForCausalLM",
        {
            "hidden_act": "xielu",
            "rope_parameters": _rope(
                rope_type="llama3",
                factor=8.0,
                low_freq_factor=1.0,
                high_freq_factor=4.0,
                original_max_position_embeddings=16,
            ),
        },
        {"n_tokens": 16},
    ),
    "exaone4": (
        "Exaone4ForCausalLM",
        {
            "sliding_window": None,
            "sliding_window_pattern": None,
            "layer_types": ["full_attention", "full_attention"],
            "rope_parameters": _rope(
                rope_type="llama3",
                factor=8.0,
                low_freq_factor=1.0,
                high_freq_factor=4.0,
                original_max_position_embeddings=16,
            ),
        },
        {},
    ),
    "ministral3": ("Ministral3ForCausalLM", _MINISTRAL3, {}),
    "ministral3-multimodal": (
        "Mistral3ForConditionalGeneration",
        {"text_config": {**_MINISTRAL3, "model_type": "ministral3"}, "vision_config": _PIXTRAL},
        {},
    ),
    "arcee": ("ArceeForCausalLM", {}, {}),
    "seed-oss": ("SeedOssForCausalLM", {"head_dim": 16}, {}),
    "ernie4-5": ("Ernie4_5ForCausalLM", {"head_dim": 16, "tie_word_embeddings": True}, {}),
    "nemotron": ("NemotronForCausalLM", {"rope_parameters": _rope(partial_rotary_factor=0.5)}, {}),
    "glm": ("GlmForCausalLM", {"head_dim": 8, "intermediate_size": 32}, {}),
    "mpt": (
        "MptForCausalLM",
        {
            "d_model": 32,
            "n_layers": 2,
            "n_heads": 4,
            "max_seq_len": 64,
            "attn_config": {"clip_qkv": 0.5},
            "tie_word_embeddings": True,
        },
        {},
    ),
    "gpt-bigcode": (
        "GPTBigCodeForCausalLM",
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
    "qwen2-vl": (
        "Qwen2VLForConditionalGeneration",
        {
            "text_config": _SECTIONS,
            "vision_config": {"depth": 1, "embed_dim": 8, "hidden_size": 32, "num_heads": 2},
        },
        {},
    ),
    "qwen25-vl": (
        "Qwen2_5_VLForConditionalGeneration",
        {"text_config": _SECTIONS, "vision_config": QWEN_VISION},
        {},
    ),
    "qwen3-vl": (
        "Qwen3VLForConditionalGeneration",
        {
            "text_config": {
                "head_dim": 16,
                "rope_parameters": _rope(mrope_section=[3, 3, 2]),
            },
            "vision_config": {
                **QWEN_VISION,
                "deepstack_visual_indexes": [0],
                "num_position_embeddings": 16,
            },
        },
        {},
    ),
    "llava": (
        "LlavaForConditionalGeneration",
        {
            "text_config": {"model_type": "llama"},
            "vision_config": {
                "model_type": "clip_vision_model",
                "hidden_size": 8,
                "intermediate_size": 8,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "image_size": 28,
                "patch_size": 14,
            },
        },
        {},
    ),
    "distilbert": (
        "DistilBertModel",
        {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48},
        {"tokenizer": "wordpiece"},
    ),
    "modern-bert": (
        "ModernBertModel",
        {
            "num_hidden_layers": 4,
            "intermediate_size": 24,
            "local_attention": 6,
            "rope_parameters": {
                "full_attention": _rope(rope_theta=50000.0),
                "sliding_attention": _rope(rope_theta=3000.0),
            },
        },
        {"tokenizer": "roberta"},
    ),
    "eurobert": ("EuroBertModel", {}, {"tokenizer": "roberta"}),
    "smolvlm": (
        "SmolVLMForConditionalGeneration",
        {
            "text_config": {"model_type": "llama"},
            "vision_config": {
                "hidden_size": 8,
                "intermediate_size": 8,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "image_size": 28,
                "patch_size": 14,
            },
        },
        {"n_tokens": 16},
    ),
    "internvl": (
        "InternVLForConditionalGeneration",
        {
            "text_config": {"model_type": "qwen2"},
            "vision_config": {
                "hidden_size": 8,
                "intermediate_size": 8,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "image_size": [28, 28],
                "patch_size": [14, 14],
            },
        },
        {"n_tokens": 16},
    ),
}

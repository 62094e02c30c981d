"""Llama in its variants, Mistral, Qwen 2 and BERT: twice as wide as the later checkpoints."""

from __future__ import annotations

from typing import Any

from recipes.recipe import N_VOCAB, SMALL, WIDTH, Recipe, rope


def _llama(**config: Any) -> dict[str, Any]:
    return {**SMALL, **config}


_LLAMA3 = rope(
    "llama3",
    factor=8.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=32,
)

FIRST: dict[str, Recipe] = {
    "llama": Recipe("LlamaForCausalLM", _llama()),
    "llama-gqa-tied": Recipe(
        "LlamaForCausalLM",
        _llama(num_key_value_heads=2, tie_word_embeddings=True, num_hidden_layers=3),
        dtype="float16",
    ),
    "llama-biases": Recipe(
        "LlamaForCausalLM", _llama(attention_bias=True, mlp_bias=True, num_key_value_heads=1)
    ),
    "llama-head-dim": Recipe("LlamaForCausalLM", _llama(head_dim=24, num_key_value_heads=2)),
    "llama-rope-llama3": Recipe("LlamaForCausalLM", _llama(rope_parameters=_LLAMA3)),
    "llama-rope-linear": Recipe(
        "LlamaForCausalLM", _llama(rope_parameters=rope("linear", factor=4.0)), old_rope=True
    ),
    "llama-rope-yarn": Recipe(
        "LlamaForCausalLM",
        _llama(
            rope_parameters=rope("yarn", factor=4.0, original_max_position_embeddings=32),
        ),
    ),
    "llama-rope-yarn-factor": Recipe(
        "LlamaForCausalLM",
        _llama(
            rope_parameters=rope(
                "yarn",
                factor=4.0,
                original_max_position_embeddings=32,
                attention_factor=1.3,
                beta_fast=16.0,
                beta_slow=2.0,
            ),
        ),
        old_rope=True,
    ),
    "llama-sharded-f32": Recipe(
        "LlamaForCausalLM",
        _llama(bos_token_id=1, eos_token_id=2),
        dtype="float32",
        tokenizer="spm",
        shard_size="150KB",
    ),
    "mistral": Recipe(
        "MistralForCausalLM",
        _llama(num_key_value_heads=2, sliding_window=None, head_dim=32),
    ),
    "qwen2": Recipe("Qwen2ForCausalLM", _llama(num_key_value_heads=2)),
    "qwen2-tied": Recipe(
        "Qwen2ForCausalLM",
        # Rows beyond the tokenizer's last token, as Qwen's checkpoints have them.
        _llama(num_key_value_heads=2, tie_word_embeddings=True, vocab_size=N_VOCAB + 32),
    ),
    "bert-masked-lm": Recipe(
        "BertForMaskedLM",
        {
            "vocab_size": N_VOCAB,
            "hidden_size": WIDTH,
            "intermediate_size": 96,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": 128,
            "type_vocab_size": 2,
        },
        dtype="float32",
        tokenizer="wordpiece",
    ),
}

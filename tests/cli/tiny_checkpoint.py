"""A Llama checkpoint with random weights, small enough to convert in milliseconds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
N_EMBD, N_FF, N_HEADS, N_KV_HEADS, N_LAYERS = 64, 128, 4, 2, 2


def write_tiny_checkpoint(folder: Path, *, seed: int = 0) -> Path:
    """Write config, tokenizer (one token a byte) and F32 weights; returns the folder."""
    folder.mkdir(parents=True)
    n_vocab = _write_tokenizer(folder)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": N_EMBD,
        "intermediate_size": N_FF,
        "num_attention_heads": N_HEADS,
        "num_key_value_heads": N_KV_HEADS,
        "num_hidden_layers": N_LAYERS,
        "vocab_size": n_vocab,
        "max_position_embeddings": 256,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
        "bos_token_id": n_vocab - 3,
        "eos_token_id": n_vocab - 1,
        "torch_dtype": "float32",
    }
    (folder / "config.json").write_text(json.dumps(config))
    save_file(_weights(n_vocab, seed), folder / "model.safetensors", {"format": "pt"})
    return folder


def _write_tokenizer(folder: Path) -> int:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIALS])
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": SPECIALS[0],
        "eos_token": SPECIALS[2],
        "chat_template": TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return int(tokenizer.get_vocab_size())


def _weights(n_vocab: int, seed: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    n_kv = N_EMBD // N_HEADS * N_KV_HEADS

    def matrix(*shape: int) -> np.ndarray:
        return (random.standard_normal(shape) * 0.2).astype(np.float32)

    weights = {
        "model.embed_tokens.weight": matrix(n_vocab, N_EMBD),
        "model.norm.weight": np.ones(N_EMBD, np.float32),
    }
    for layer in range(N_LAYERS):
        prefix = f"model.layers.{layer}."
        weights |= {
            f"{prefix}self_attn.q_proj.weight": matrix(N_EMBD, N_EMBD),
            f"{prefix}self_attn.k_proj.weight": matrix(n_kv, N_EMBD),
            f"{prefix}self_attn.v_proj.weight": matrix(n_kv, N_EMBD),
            f"{prefix}self_attn.o_proj.weight": matrix(N_EMBD, N_EMBD),
            f"{prefix}mlp.gate_proj.weight": matrix(N_FF, N_EMBD),
            f"{prefix}mlp.up_proj.weight": matrix(N_FF, N_EMBD),
            f"{prefix}mlp.down_proj.weight": matrix(N_EMBD, N_FF),
            f"{prefix}input_layernorm.weight": np.ones(N_EMBD, np.float32),
            f"{prefix}post_attention_layernorm.weight": np.ones(N_EMBD, np.float32),
        }
    return weights

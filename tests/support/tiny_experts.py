"""A Llama with experts and random weights."""

from __future__ import annotations

from pathlib import Path

from tests.support.tiny_gguf import RandomTensors, finish_file, start_file, vocabulary

N_EMBD, N_FF, N_HEADS, N_EXPERTS = 64, 128, 4, 4


def write_tiny_experts(path: Path, *, n_layers: int = 3, n_ctx: int = 512) -> Path:
    """Write the model in F32 and return its path."""
    writer = start_file(path, "llama", n_ctx=n_ctx, n_embd=N_EMBD, n=n_layers)
    writer.add_feed_forward_length(N_FF)
    writer.add_head_count(N_HEADS)
    writer.add_head_count_kv(N_HEADS)
    writer.add_rope_dimension_count(N_EMBD // N_HEADS)
    writer.add_expert_count(N_EXPERTS)
    writer.add_expert_used_count(2)
    add = RandomTensors(writer, 5).add
    n_vocab = len(vocabulary())
    add("token_embd.weight", n_vocab, N_EMBD, scale=1.0)
    for i in range(n_layers):
        add(f"blk.{i}.attn_norm.weight", N_EMBD, around=1.0)
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            add(f"blk.{i}.{name}.weight", N_EMBD, N_EMBD)
        add(f"blk.{i}.ffn_norm.weight", N_EMBD, around=1.0)
        add(f"blk.{i}.ffn_gate_inp.weight", N_EXPERTS, N_EMBD)
        add(f"blk.{i}.ffn_gate_exps.weight", N_EXPERTS, N_FF, N_EMBD)
        add(f"blk.{i}.ffn_up_exps.weight", N_EXPERTS, N_FF, N_EMBD)
        add(f"blk.{i}.ffn_down_exps.weight", N_EXPERTS, N_EMBD, N_FF)
    add("output_norm.weight", N_EMBD, around=1.0)
    add("output.weight", n_vocab, N_EMBD)
    return finish_file(writer)

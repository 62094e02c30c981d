"""Models with random weights whose memory is no plain KV cache: recurrent, hybrid, windowed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.support.tiny_gguf import RandomTensors, finish_file, start_file, vocabulary

N_EMBD, N_LAYERS, N_FF, N_CTX = 64, 2, 128, 256
N_VOCAB = len(vocabulary())


def mamba(path: Path) -> Path:
    """State-space layers only: a state, no cells."""
    writer = start_file(path, "mamba", n_ctx=N_CTX, n_embd=N_EMBD, n=N_LAYERS)
    inner, state, conv, rank = 2 * N_EMBD, 8, 4, 4
    writer.add_feed_forward_length(0)
    writer.add_head_count(0)
    writer.add_ssm_conv_kernel(conv)
    writer.add_ssm_inner_size(inner)
    writer.add_ssm_state_size(state)
    writer.add_ssm_time_step_rank(rank)
    add = RandomTensors(writer, 1).add
    add("token_embd.weight", N_VOCAB, N_EMBD, scale=1.0)
    for i in range(N_LAYERS):
        add(f"blk.{i}.attn_norm.weight", N_EMBD, around=1.0)
        add(f"blk.{i}.ssm_in.weight", 2 * inner, N_EMBD)
        add(f"blk.{i}.ssm_conv1d.weight", inner, conv)
        add(f"blk.{i}.ssm_conv1d.bias", inner)
        add(f"blk.{i}.ssm_x.weight", rank + 2 * state, inner)
        add(f"blk.{i}.ssm_dt.weight", inner, rank)
        add(f"blk.{i}.ssm_dt.bias", inner)
        add(f"blk.{i}.ssm_a", inner, state, around=-1.0, scale=0.1)
        add(f"blk.{i}.ssm_d", inner)
        add(f"blk.{i}.ssm_out.weight", N_EMBD, inner)
    add("output_norm.weight", N_EMBD, around=1.0)
    return finish_file(writer)


def lfm2(path: Path) -> Path:
    """A short convolution, then an attention layer: a state and cells."""
    writer = start_file(path, "lfm2", n_ctx=N_CTX, n_embd=N_EMBD, n=N_LAYERS)
    n_heads, n_kv_heads, window = 4, 2, 3
    head = N_EMBD // n_heads
    writer.add_feed_forward_length(N_FF)
    writer.add_head_count(n_heads)
    writer.add_head_count_kv([0, n_kv_heads])
    writer.add_shortconv_l_cache(window)
    add = RandomTensors(writer, 2).add
    add("token_embd.weight", N_VOCAB, N_EMBD, scale=1.0)
    add("token_embd_norm.weight", N_EMBD, around=1.0)
    for i in range(N_LAYERS):
        add(f"blk.{i}.attn_norm.weight", N_EMBD, around=1.0)
        _feed_forward(add, i)
    add("blk.0.shortconv.conv.weight", N_EMBD, window)
    add("blk.0.shortconv.in_proj.weight", 3 * N_EMBD, N_EMBD)
    add("blk.0.shortconv.out_proj.weight", N_EMBD, N_EMBD)
    add("blk.1.attn_q_norm.weight", head, around=1.0)
    add("blk.1.attn_k_norm.weight", head, around=1.0)
    _attention(add, 1, n_kv=head * n_kv_heads)
    return finish_file(writer)


def gemma2(path: Path) -> Path:
    """Attention over a sliding window in every other layer."""
    writer = start_file(path, "gemma2", n_ctx=N_CTX, n_embd=N_EMBD, n=N_LAYERS)
    n_heads, n_kv_heads = 4, 2
    head = N_EMBD // n_heads
    writer.add_feed_forward_length(N_FF)
    writer.add_head_count(n_heads)
    writer.add_head_count_kv(n_kv_heads)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_sliding_window(16)
    writer.add_attn_logit_softcapping(50.0)
    writer.add_final_logit_softcapping(30.0)
    add = RandomTensors(writer, 3).add
    add("token_embd.weight", N_VOCAB, N_EMBD, scale=0.3)
    for i in range(N_LAYERS):
        for norm in ("attn_norm", "post_attention_norm", "post_ffw_norm"):
            add(f"blk.{i}.{norm}.weight", N_EMBD, around=1.0)
        _attention(add, i, n_kv=head * n_kv_heads)
        _feed_forward(add, i)
    add("output_norm.weight", N_EMBD, around=1.0)
    return finish_file(writer)


def _attention(add: Callable[..., None], layer: int, *, n_kv: int) -> None:
    add(f"blk.{layer}.attn_q.weight", N_EMBD, N_EMBD)
    add(f"blk.{layer}.attn_k.weight", n_kv, N_EMBD)
    add(f"blk.{layer}.attn_v.weight", n_kv, N_EMBD)
    add(f"blk.{layer}.attn_output.weight", N_EMBD, N_EMBD)


def _feed_forward(add: Callable[..., None], layer: int) -> None:
    add(f"blk.{layer}.ffn_norm.weight", N_EMBD, around=1.0)
    add(f"blk.{layer}.ffn_gate.weight", N_FF, N_EMBD)
    add(f"blk.{layer}.ffn_up.weight", N_FF, N_EMBD)
    add(f"blk.{layer}.ffn_down.weight", N_EMBD, N_FF)


MEMORIES = {"recurrent": mamba, "hybrid": lfm2, "sliding window": gemma2}

"""A GGUF file of a real shape with random weights, to measure speed with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np

BLOCK = 32
# Bytes of a block's values behind its scale, and the file type's number.
TYPES = {
    "Q4_0": (16, gguf.LlamaFileType.MOSTLY_Q4_0),
    "Q8_0": (32, gguf.LlamaFileType.MOSTLY_Q8_0),
    "F16": (0, gguf.LlamaFileType.MOSTLY_F16),
}


@dataclass(frozen=True)
class Shape:
    """A Llama; the defaults have 0.4 billion parameters."""

    n_layers: int = 24
    n_embd: int = 1024
    n_heads: int = 16
    n_kv_heads: int = 8
    n_ff: int = 4096
    n_vocab: int = 32000
    n_ctx: int = 8192
    type: str = "Q4_0"
    """Of the matrices: a key of ``TYPES``."""
    n_active: int | None = None
    """Layers behind these take their time and change nothing (quantized models only): one with that
    many layers says the same."""


def write_model(path: Path, shape: Shape | None = None) -> Path:
    """Write the model (norms in F32). The values are random: only their size matters."""
    shape = shape or Shape()
    random = np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, "llama")
    _add_metadata(writer, shape)

    def matrix(name: str, rows: int, columns: int, *, weight: int = 1) -> None:
        if shape.type == "F16":
            values = random.standard_normal((rows, columns), np.float32) / np.sqrt(columns)
            writer.add_tensor(name, values.astype(np.float16))
            return
        n_blocks, n_bytes = columns // BLOCK, TYPES[shape.type][0] + 2
        data = random.integers(0, 256, (rows, n_blocks, n_bytes), dtype=np.uint8)
        # Signs, since quants are not centred: with a mean in the weights, attention looks at the
        # nearest tokens alone, and all else is too small for a float, which takes CPUs ages.
        signs = random.choice(np.array([-1, 1], np.float16), (rows, n_blocks, 1))
        scale = signs * np.float16(4 / 2 ** (n_bytes // 4) / np.sqrt(columns))
        data[:, :, :2] = (weight * scale).view(np.uint8)
        kind = gguf.GGMLQuantizationType[shape.type]
        writer.add_tensor(name, data.reshape(rows, n_blocks * n_bytes), raw_dtype=kind)

    def norm(name: str) -> None:
        writer.add_tensor(name, np.ones(shape.n_embd, np.float32))

    head = shape.n_embd // shape.n_heads
    matrix("token_embd.weight", shape.n_vocab, shape.n_embd)
    for i in range(shape.n_layers):
        active = int(shape.n_active is None or i < shape.n_active)
        norm(f"blk.{i}.attn_norm.weight")
        matrix(f"blk.{i}.attn_q.weight", shape.n_embd, shape.n_embd)
        matrix(f"blk.{i}.attn_k.weight", head * shape.n_kv_heads, shape.n_embd)
        matrix(f"blk.{i}.attn_v.weight", head * shape.n_kv_heads, shape.n_embd)
        matrix(f"blk.{i}.attn_output.weight", shape.n_embd, shape.n_embd, weight=active)
        norm(f"blk.{i}.ffn_norm.weight")
        matrix(f"blk.{i}.ffn_gate.weight", shape.n_ff, shape.n_embd)
        matrix(f"blk.{i}.ffn_up.weight", shape.n_ff, shape.n_embd)
        matrix(f"blk.{i}.ffn_down.weight", shape.n_embd, shape.n_ff, weight=active)
    norm("output_norm.weight")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def write_adapter(path: Path, shape: Shape, *, rank: int) -> Path:
    """Write a LoRA adapter with random values for every matrix of the model's layers (F32)."""
    random = np.random.default_rng(1)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", float(rank))
    kv = shape.n_embd // shape.n_heads * shape.n_kv_heads
    sizes = {
        "attn_q": (shape.n_embd, shape.n_embd),
        "attn_k": (kv, shape.n_embd),
        "attn_v": (kv, shape.n_embd),
        "attn_output": (shape.n_embd, shape.n_embd),
        "ffn_gate": (shape.n_ff, shape.n_embd),
        "ffn_up": (shape.n_ff, shape.n_embd),
        "ffn_down": (shape.n_embd, shape.n_ff),
    }
    for i in range(shape.n_layers):
        for name, (rows, columns) in sizes.items():
            for half, dims in (("a", (rank, columns)), ("b", (rows, rank))):
                values = random.standard_normal(dims, np.float32) / columns
                writer.add_tensor(f"blk.{i}.{name}.weight.lora_{half}", values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add_metadata(writer: gguf.GGUFWriter, shape: Shape) -> None:
    writer.add_context_length(shape.n_ctx)
    writer.add_embedding_length(shape.n_embd)
    writer.add_block_count(shape.n_layers)
    writer.add_feed_forward_length(shape.n_ff)
    writer.add_head_count(shape.n_heads)
    writer.add_head_count_kv(shape.n_kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(shape.n_embd // shape.n_heads)
    writer.add_vocab_size(shape.n_vocab)
    writer.add_file_type(TYPES[shape.type][1])
    writer.add_tokenizer_model("llama")
    special = ["<unk>", "<s>", "</s>"]
    letters = [f"<0x{b:02X}>" for b in range(256)]
    words = [f"\u2581w{i}" for i in range(shape.n_vocab - 259)]
    writer.add_token_list([*special, *letters, *words])
    writer.add_token_scores([0.0] * 259 + [-float(i) for i in range(len(words))])
    kinds = gguf.TokenType
    writer.add_token_types(
        [kinds.UNKNOWN, kinds.CONTROL, kinds.CONTROL]
        + [kinds.BYTE] * 256
        + [kinds.NORMAL] * len(words)
    )
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)

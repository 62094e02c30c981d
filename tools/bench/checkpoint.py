"""A safetensors checkpoint of a real shape with random weights, to measure the converter with."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tools.bench.model import Shape

BYTES_A_ROW_GROUP = 2**24


def write_checkpoint(folder: Path, shape: Shape | None = None) -> Path:
    """A Llama in bfloat16 with a SentencePiece vocabulary: what llama.cpp's converter takes."""
    shape = shape or Shape()
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": shape.n_embd,
        "intermediate_size": shape.n_ff,
        "num_hidden_layers": shape.n_layers,
        "num_attention_heads": shape.n_heads,
        "num_key_value_heads": shape.n_kv_heads,
        "max_position_embeddings": shape.n_ctx,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "vocab_size": shape.n_vocab,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    (folder / "config.json").write_text(json.dumps(config))
    tokenizer = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps({**tokenizer, "unk_token": "<unk>"}))
    (folder / "tokenizer.model").write_bytes(sentencepiece_model(shape.n_vocab))
    _write_weights(folder / "model.safetensors", shape)
    return folder


def _tensors(shape: Shape) -> Iterator[tuple[str, tuple[int, ...]]]:
    head = shape.n_embd // shape.n_heads
    yield "model.embed_tokens.weight", (shape.n_vocab, shape.n_embd)
    for i in range(shape.n_layers):
        layer = f"model.layers.{i}"
        yield f"{layer}.input_layernorm.weight", (shape.n_embd,)
        yield f"{layer}.self_attn.q_proj.weight", (shape.n_embd, shape.n_embd)
        yield f"{layer}.self_attn.k_proj.weight", (head * shape.n_kv_heads, shape.n_embd)
        yield f"{layer}.self_attn.v_proj.weight", (head * shape.n_kv_heads, shape.n_embd)
        yield f"{layer}.self_attn.o_proj.weight", (shape.n_embd, shape.n_embd)
        yield f"{layer}.post_attention_layernorm.weight", (shape.n_embd,)
        yield f"{layer}.mlp.gate_proj.weight", (shape.n_ff, shape.n_embd)
        yield f"{layer}.mlp.up_proj.weight", (shape.n_ff, shape.n_embd)
        yield f"{layer}.mlp.down_proj.weight", (shape.n_embd, shape.n_ff)
    yield "model.norm.weight", (shape.n_embd,)


def _write_weights(path: Path, shape: Shape) -> None:
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, size in _tensors(shape):
        n_bytes = 2 * int(np.prod(size))
        entry = {"dtype": "BF16", "shape": list(size), "data_offsets": [offset, offset + n_bytes]}
        header[name] = entry
        offset += n_bytes
    text = json.dumps(header).encode()
    random = np.random.default_rng(0)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, size in _tensors(shape):
            left = int(np.prod(size))
            while left:
                n = min(left, BYTES_A_ROW_GROUP // 2)
                values = random.standard_normal(n, dtype=np.float32) * np.float32(0.02)
                if name.endswith("norm.weight"):
                    values += 1
                file.write((values.view(np.uint32) >> 16).astype(np.uint16).tobytes())
                left -= n


def sentencepiece_model(n_vocab: int) -> bytes:
    """A BPE model of ``n_vocab`` pieces: control tokens, bytes, letters, made-up words.

    Written field by field (sentencepiece_model.proto in google/sentencepiece): nothing is trained.
    """
    normal, unknown, control, byte = 1, 2, 3, 6
    pieces = [("<unk>", 0.0, unknown), ("<s>", 0.0, control), ("</s>", 0.0, control)]
    pieces += [(f"<0x{b:02X}>", 0.0, byte) for b in range(256)]
    letters = "\u2581" + "".join(chr(c) for c in range(33, 127))
    words = list(letters)
    # Every word is a shorter one and a letter, so that merges can make it.
    for word in words:
        if len(words) >= n_vocab:
            break
        words += [word + letter for letter in "aeinorstl"]
    words = list(dict.fromkeys(words))[: n_vocab - len(pieces)]
    pieces += [(word, -float(i), normal) for i, word in enumerate(words)]
    encoded = b"".join(_message(1, _piece(*piece)) for piece in pieces)
    trainer = _number(3, 2) + _number(4, n_vocab) + _number(35, 1)  # BPE, vocab_size, byte_fallback
    normalizer = _text(1, "identity") + _number(3, 1) + _number(4, 0) + _number(5, 1)
    return encoded + _message(2, trainer) + _message(3, normalizer)


def _piece(text: str, score: float, kind: int) -> bytes:
    return _text(1, text) + b"\x15" + struct.pack("<f", score) + _number(3, kind)


def _varint(value: int) -> bytes:
    parts = bytearray()
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    return bytes([*parts, value])


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _message(field: int, data: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(data)) + data


def _text(field: int, text: str) -> bytes:
    return _message(field, text.encode())

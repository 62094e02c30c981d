"""GGUF files with random weights, made in milliseconds without any checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gguf
import numpy as np

CONTROL, NORMAL = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL
SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@dataclass(frozen=True)
class TinyVocab:
    """A vocabulary of any kind; ``model`` and ``pre`` are llama.cpp's names for it."""

    model: str
    tokens: list[str]
    types: list[int]
    bos: int
    eos: int
    pre: str = "gpt-2"
    scores: list[float] | None = None
    merges: list[str] | None = None


@dataclass(frozen=True)
class TinyLlama:
    """Shape of a Llama with random weights; by default one token a byte."""

    n_layers: int = 2
    n_embd: int = 64
    n_heads: int = 4
    n_kv_heads: int = 2
    n_ff: int = 128
    n_ctx: int = 256
    seed: int = 0
    chat_template: str | None = CHAT_TEMPLATE
    marks: tuple[str, ...] = ()
    """Tags that are tokens of their own, behind the others."""
    vocab: TinyVocab | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """More key-value pairs; ints become uint32."""


def byte_tokens() -> list[str]:
    """The 256 byte tokens in GPT-2's printable alphabet."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table = {b: chr(b) for b in printable}
    extra = 0
    for b in range(256):
        if b not in table:
            table[b] = chr(256 + extra)
            extra += 1
    return [table[b] for b in range(256)]


def write_tiny_llama(path: Path, shape: TinyLlama | None = None) -> Path:
    """Write the model in F32 and return its path."""
    shape = shape or TinyLlama()
    writer = start_file(
        path,
        "llama",
        n_ctx=shape.n_ctx,
        n_embd=shape.n_embd,
        n=shape.n_layers,
        vocab=shape.vocab or byte_vocab(shape.marks),
    )
    writer.add_feed_forward_length(shape.n_ff)
    writer.add_head_count(shape.n_heads)
    writer.add_head_count_kv(shape.n_kv_heads)
    writer.add_rope_dimension_count(shape.n_embd // shape.n_heads)
    if shape.chat_template is not None:
        writer.add_chat_template(shape.chat_template)
    for key, value in shape.metadata.items():
        _add(writer, key, value)
    _add_tensors(writer, shape)
    return finish_file(writer)


def start_file(
    path: Path,
    architecture: str,
    *,
    n_ctx: int,
    n_embd: int,
    n: int,
    vocab: TinyVocab | None = None,
) -> gguf.GGUFWriter:
    """A writer with the metadata that every model here has: sizes, ``n`` layers, vocabulary."""
    writer = gguf.GGUFWriter(path, architecture)
    vocab = vocab or byte_vocab()
    writer.add_context_length(n_ctx)
    writer.add_embedding_length(n_embd)
    writer.add_block_count(n)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(vocab.tokens))
    writer.add_tokenizer_model(vocab.model)
    writer.add_tokenizer_pre(vocab.pre)
    writer.add_token_list(vocab.tokens)
    writer.add_token_types(vocab.types)
    if vocab.scores is not None:
        writer.add_token_scores(vocab.scores)
    if vocab.merges is not None:
        writer.add_token_merges(vocab.merges)
    writer.add_bos_token_id(vocab.bos)
    writer.add_eos_token_id(vocab.eos)
    writer.add_add_bos_token(False)
    return writer


def finish_file(writer: gguf.GGUFWriter) -> Path:
    """Write everything; the file's path."""
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert writer.path is not None
    return Path(writer.path)


def byte_vocab(marks: tuple[str, ...] = (), *, merges: tuple[str, ...] = ()) -> TinyVocab:
    """One token a byte, the control tokens, ``marks``, and what ``merges`` make of bytes."""
    tokens = vocabulary()
    kinds = [NORMAL] * 256 + [CONTROL] * len(SPECIALS)
    return TinyVocab(
        model="gpt2",
        tokens=[*tokens, *marks, *(merge.replace(" ", "") for merge in merges)],
        types=[*kinds, *[gguf.TokenType.USER_DEFINED] * len(marks), *[NORMAL] * len(merges)],
        bos=256,
        eos=258,
        merges=list(merges) or [f"{tokens[0]} {tokens[1]}"],
    )


def vocabulary() -> list[str]:
    """One token a byte, and the control tokens."""
    return [*byte_tokens(), *SPECIALS]


class RandomTensors:
    """Adds tensors of normally distributed values to a file."""

    def __init__(self, writer: gguf.GGUFWriter, seed: int) -> None:
        self._writer = writer
        self._random = np.random.default_rng(seed)

    def add(self, name: str, *dims: int, around: float = 0.0, scale: float = 0.2) -> None:
        """A tensor of F32 values of ``scale`` around ``around``; rows before columns."""
        values = self._random.standard_normal(dims) * scale + around
        self._writer.add_tensor(name, values.astype(np.float32))


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, list):
        writer.add_array(key, value)
    else:
        writer.add_string(key, value)


def _add_tensors(writer: gguf.GGUFWriter, shape: TinyLlama) -> None:
    add = RandomTensors(writer, shape.seed).add
    n_vocab = len((shape.vocab or byte_vocab(shape.marks)).tokens)
    kv = shape.n_embd // shape.n_heads * shape.n_kv_heads
    add("token_embd.weight", n_vocab, shape.n_embd, scale=1.0)
    for i in range(shape.n_layers):
        add(f"blk.{i}.attn_norm.weight", shape.n_embd, around=1.0)
        add(f"blk.{i}.attn_q.weight", shape.n_embd, shape.n_embd)
        add(f"blk.{i}.attn_k.weight", kv, shape.n_embd)
        add(f"blk.{i}.attn_v.weight", kv, shape.n_embd)
        add(f"blk.{i}.attn_output.weight", shape.n_embd, shape.n_embd)
        add(f"blk.{i}.ffn_norm.weight", shape.n_embd, around=1.0)
        add(f"blk.{i}.ffn_gate.weight", shape.n_ff, shape.n_embd)
        add(f"blk.{i}.ffn_up.weight", shape.n_ff, shape.n_embd)
        add(f"blk.{i}.ffn_down.weight", shape.n_embd, shape.n_ff)
    add("output_norm.weight", shape.n_embd, around=1.0)
    add("output.weight", n_vocab, shape.n_embd)

"""Vocabularies of single bytes and a few words, in files without weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import gguf

from tests.support.tiny_gguf import TinyVocab, byte_tokens, finish_file, start_file

_MARKS = ("<tool_call>", "</tool_call>", "<|START_ACTION|>", "</think>")
EOS = 256
MARKS = {mark: EOS + 1 + n for n, mark in enumerate(_MARKS)}
"""The marks that are tokens, with their ids."""


def write_vocab(path: Path) -> Path:
    """Byte-level BPE of single bytes, with the marks of some formats as tokens of their own."""
    tokens = [*byte_tokens(), "</s>", *_MARKS]
    kind = gguf.TokenType
    types = [kind.NORMAL] * 256 + [kind.CONTROL] + [kind.USER_DEFINED] * len(_MARKS)
    merges = [f"{tokens[0]} {tokens[1]}"]
    return _write(path, TinyVocab("gpt2", tokens, types, bos=EOS, eos=EOS, merges=merges))


def write_word_vocab(
    path: Path, words: Sequence[str], specials: Sequence[tuple[str, gguf.TokenType]]
) -> Path:
    """SentencePiece's kind: three control tokens, ``specials``, every byte, ``words``."""
    kind = gguf.TokenType
    entries = [
        ("<unk>", kind.UNKNOWN),
        ("<s>", kind.CONTROL),
        ("</s>", kind.CONTROL),
        *specials,
        *((f"<0x{byte:02X}>", kind.BYTE) for byte in range(256)),
        *((word, kind.NORMAL) for word in words),
    ]
    vocab = TinyVocab(
        "llama",
        [text for text, _ in entries],
        [int(type) for _, type in entries],
        bos=1,
        eos=2,
        pre="default",
        scores=[-float(n) for n in range(len(entries))],
    )
    return _write(path, vocab)


def _write(path: Path, vocab: TinyVocab) -> Path:
    writer = start_file(path, "llama", n_ctx=64, n_embd=32, n=1, vocab=vocab)
    writer.add_feed_forward_length(32)
    writer.add_head_count(1)
    return finish_file(writer)

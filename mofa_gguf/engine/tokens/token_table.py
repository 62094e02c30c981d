"""A vocabulary as llguidance wants it."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Collection, Sequence
from typing import Any

import llguidance

from mofa_gguf.engine.native import llama
from mofa_gguf.engine.tokens.vocab import Vocab

# llama.h, enum llama_token_attr.
_UNKNOWN, _UNUSED, _CONTROL, _USER_DEFINED = 1, 2, 8, 16


def special_tokens(vocab: Vocab, pieces: Sequence[bytes], eos: Sequence[int]) -> set[int]:
    """Tokens without text of their own: control tokens, the ids that end a generation, entries
    that are unused or unknown, and tokens that users defined to look like tags."""
    attribute_of = llama().llama_vocab_get_attr
    special = set(eos)
    for token, piece in enumerate(pieces):
        attributes = attribute_of(vocab.pointer, token)
        is_tag = attributes & _USER_DEFINED and piece.startswith(b"<") and piece.endswith(b">")
        if is_tag or attributes & (_UNKNOWN | _UNUSED | _CONTROL):
            special.add(token)
    return special


def token_table(
    vocab: Vocab,
    pieces: Sequence[bytes],
    special: Collection[int],
    eos: Sequence[int],
    spell: Callable[[bytes], list[int]] | None,
) -> Any:
    """llguidance's tokenizer for a llama.cpp vocabulary.

    Special tokens are marked by a byte 0xff in front, which no text contains. ``spell`` makes
    tokens of bytes where llama.cpp's tokenizer cannot be asked.
    """
    tokens = [
        b"\xff" + (piece or f"<token {token}>".encode()) if token in special else piece
        for token, piece in enumerate(pieces)
    ]
    if spell is not None:
        wrapper = llguidance.TokenizerWrapper(_Spelling(tokens, sorted(special), eos[0], spell))
        return llguidance.LLTokenizer(wrapper, eos_token=list(eos))
    address = ctypes.cast(llama()._lib.llama_tokenize, ctypes.c_void_p).value
    # What llguidance.llamacpp does, with the marks above.
    return llguidance.LLTokenizer.from_llamacpp(
        tokens=tokens,
        vocab_ptr=vocab.pointer,
        tokenize_fptr=address,
        eos_token=list(eos),
        slices=None,
    )


class _Spelling:
    """A tokenizer as llguidance wants it, over a function that spells bytes."""

    bos_token_id = None

    def __init__(
        self,
        tokens: Sequence[bytes],
        special: Sequence[int],
        eos: int,
        spell: Callable[[bytes], list[int]],
    ) -> None:
        self.tokens = tokens
        self.special_token_ids = special
        self.eos_token_id = eos
        self._spell = spell

    def __call__(self, text: bytes) -> list[int]:
        return self._spell(text)

"""tokenizer.model: the pieces and settings of a SentencePiece model, read from its protobuf.

Message and field numbers: google/sentencepiece, src/sentencepiece_model.proto; wire format:
protobuf.dev/programming-guides/encoding. Read here because the `sentencepiece` package only gives
its settings through the protobuf runtime, and because a file must be recognised before it is
trusted: some checkpoints keep tiktoken ranks under the same name.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

from mofa_gguf.convert.errors import TokenizerError
from mofa_gguf.convert.tokenizer.vocabulary import MAX_TOKENS, TokenType

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class ModelType(IntEnum):
    """TrainerSpec.model_type."""

    UNIGRAM = 1
    BPE = 2
    WORD = 3
    CHAR = 4


@dataclass(frozen=True)
class Piece:
    """One entry of the vocabulary, in the order of ids."""

    text: str
    score: float
    type: TokenType


@dataclass(frozen=True)
class SentencePieceModel:
    """What of a model file matters for a vocabulary. Ids are None where the model has none."""

    pieces: tuple[Piece, ...]
    model_type: ModelType
    add_dummy_prefix: bool
    remove_extra_whitespaces: bool
    treat_whitespace_as_suffix: bool
    precompiled_charsmap: bytes
    ids: dict[str, int]


def parse_sentencepiece(data: bytes, name: str) -> SentencePieceModel:
    """Parse a model file. Raises TokenizerError when it is no SentencePiece model."""
    try:
        return _parse(data)
    except (ValueError, IndexError, struct.error, UnicodeDecodeError) as error:
        hint = ", but a tiktoken rank file" if looks_like_tiktoken(data) else ""
        raise TokenizerError(
            f"{name}: is no SentencePiece model{hint}; "
            "save the tokenizer with a tokenizer.json beside it"
        ) from error


def looks_like_tiktoken(data: bytes) -> bool:
    """Whether the file is tiktoken's: lines of a base64 token, a space and its rank."""
    token, _, rank = data[:200].partition(b"\n")[0].partition(b" ")
    return rank.isdigit() and token != b"" and token.rstrip(b"=").replace(b"+", b"").isalnum()


def _parse(data: bytes) -> SentencePieceModel:
    pieces: list[Piece] = []
    trainer: dict[int, int | bytes] = {}
    normalizer: dict[int, int | bytes] = {}
    for field, value in _fields(data):
        if field == 1:
            pieces.append(_piece(_as_bytes(value)))
            if len(pieces) > MAX_TOKENS:
                raise ValueError("too many pieces")
        elif field == 2:
            trainer.update(_fields(_as_bytes(value)))
        elif field == 3:
            normalizer.update(_fields(_as_bytes(value)))
    if not pieces:
        raise ValueError("no pieces")
    return SentencePieceModel(
        pieces=tuple(pieces),
        model_type=ModelType(_as_int(trainer.get(3, ModelType.UNIGRAM))),
        add_dummy_prefix=bool(normalizer.get(3, 1)),
        remove_extra_whitespaces=bool(normalizer.get(4, 1)),
        treat_whitespace_as_suffix=bool(trainer.get(24, 0)),
        precompiled_charsmap=_as_bytes(normalizer.get(2, b"")),
        ids=_special_ids(trainer, len(pieces)),
    )


def _special_ids(trainer: dict[int, int | bytes], n_pieces: int) -> dict[str, int]:
    defaults = {"unk": (40, 0), "bos": (41, 1), "eos": (42, 2), "pad": (43, -1)}
    ids = {}
    for role, (field, default) in defaults.items():
        value = _as_int(trainer.get(field, default))
        # Protobuf writes a negative int32 as a 64-bit varint.
        if value < n_pieces and value >= 0:
            ids[role] = value
    return ids


def _piece(data: bytes) -> Piece:
    text, score, kind = "", 0.0, TokenType.NORMAL
    for field, value in _fields(data):
        if field == 1:
            text = _as_bytes(value).decode("utf-8")
        elif field == 2:
            (score,) = struct.unpack("<f", struct.pack("<I", _as_int(value)))
        elif field == 3:
            kind = TokenType(_as_int(value))
    return Piece(text, score, kind)


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Fields of a message: its number and a number or the bytes of a string or message."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        field, wire = tag >> 3, tag & 7
        if field == 0:
            raise ValueError("field number 0")
        value: int | bytes
        if wire == _VARINT:
            value, at = _varint(data, at)
        elif wire == _BYTES:
            length, at = _varint(data, at)
            if length > len(data) - at:
                raise ValueError("a field runs past the end")
            value, at = data[at : at + length], at + length
        elif wire in (_FIXED32, _FIXED64):
            width = 4 if wire == _FIXED32 else 8
            if width > len(data) - at:
                raise ValueError("a field runs past the end")
            value, at = int.from_bytes(data[at : at + width], "little"), at + width
        else:
            raise ValueError(f"wire type {wire}")
        yield field, value


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a varint of more than ten bytes")


def _as_bytes(value: int | bytes) -> bytes:
    if not isinstance(value, bytes):
        raise ValueError("a number where bytes belong")
    return value


def _as_int(value: int | bytes) -> int:
    if not isinstance(value, int):
        raise ValueError("bytes where a number belongs")
    return value

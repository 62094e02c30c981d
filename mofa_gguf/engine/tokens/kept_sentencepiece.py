"""A checkpoint's SentencePiece model, kept in the GGUF file and run by the library of that name.

The converter keeps it where there is no tokenizer.json and llama.cpp cannot tokenize as the model
does: the model's bytes under :data:`MODEL_KEY`, and under :data:`ADDED_KEY` the tokens that were
added to it, as JSON. As in ``transformers``, these are taken out of the text first.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mofa_gguf.engine.errors import EngineError, ModelFileError
from mofa_gguf.engine.files.header import ArraySummary
from mofa_gguf.engine.tokens.spellings import TokenMemo, pattern_of

MODEL_KEY = "tokenizer.sentencepiece.model"
ADDED_KEY = "tokenizer.sentencepiece.added"
MAX_BYTES = 2**26
"""Far above any published model."""
_UINT8 = 0  # gguf.h, enum gguf_type
_SURROGATES = re.compile("[\ud800-\udfff]")


class SentencePieces:
    """A SentencePiece model with tokens ``added`` to it. Raises ValueError for what is none."""

    def __init__(self, model: bytes, added: Mapping[str, int]) -> None:
        from sentencepiece import SentencePieceProcessor

        self._added = {text: token for text, token in added.items() if text}
        self._spelled = pattern_of(self._added)
        self._processor: Any = SentencePieceProcessor()
        try:
            self._processor.LoadFromSerializedProto(model)
        except (RuntimeError, OSError) as error:
            reason = (str(error).splitlines() or ["no reason given"])[0][:200]
            raise ValueError(f"the sentencepiece library cannot load it ({reason})") from error

    @property
    def n_pieces(self) -> int:
        """Tokens of the model itself."""
        return int(self._processor.GetPieceSize())

    @property
    def added(self) -> Mapping[str, int]:
        """The tokens that were added, by their texts."""
        return self._added

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, read literally."""
        tokens: list[int] = []
        start = 0
        for found in self._spelled.finditer(text) if self._spelled is not None else ():
            tokens += self._processor.EncodeAsIds(text[start : found.start()])
            tokens.append(self._added[found[0]])
            start = found.end()
        return tokens + list(self._processor.EncodeAsIds(text[start:]))


class KeptSentencePiece:
    """Tokenizes as the checkpoint does. Safe to use from several threads.

    ``control`` are the file's control tokens by their spellings, ``n_tokens`` how many tokens the
    model has.
    """

    def __init__(
        self, pieces: SentencePieces, path: Path, *, n_tokens: int, control: Mapping[str, int]
    ) -> None:
        self._pieces = pieces
        self._path = path
        self._n_tokens = n_tokens
        self._control = control
        self._spelled = pattern_of(control)
        self._memo = TokenMemo()

    def tokenize(self, text: str, *, parse_special: bool, continues: bool) -> list[int]:
        """See :meth:`mofa_gguf.engine.tokens.vocab.Vocab.tokenize`. Raises EngineError."""
        text = text if text.isascii() else _SURROGATES.sub("\ufffd", text)
        tokens: list[int] = []
        start = 0
        for found in self._spelled.finditer(text) if parse_special and self._spelled else ():
            tokens += self._part(text[start : found.start()], continues and not start)
            tokens.append(self._control[found[0]])
            start = found.end()
        return tokens + self._part(text[start:], continues and not start)

    def _part(self, text: str, continues: bool) -> list[int]:
        if not text:
            return []
        if not continues:
            return list(self._memo.tokens(text, self._encode))
        # A model may put a space in front of what it takes for a text's beginning.
        before, tokens = self._encode("\n"), self._encode("\n" + text)
        return tokens[len(before) :] if tokens[: len(before)] == before else self._encode(text)

    def _encode(self, text: str) -> list[int]:
        tokens = self._pieces.encode(text)
        if tokens and not 0 <= min(tokens) <= max(tokens) < self._n_tokens:
            raise EngineError(
                f"the tokenizer in {self._path.name} gives a token that the model does not have"
            )
        return tokens


def stored_pieces(metadata: Mapping[str, Any], path: Path) -> SentencePieces | None:
    """What a file keeps of a SentencePiece tokenizer, if anything. Raises ModelFileError."""
    stored = metadata.get(MODEL_KEY)
    if stored is None:
        return None
    try:
        added = json.loads(metadata.get(ADDED_KEY, "{}"))
        if not isinstance(added, dict) or not all(type(i) is int for i in added.values()):
            raise ValueError(f"{ADDED_KEY} is no list of tokens")
        return SentencePieces(_bytes(stored, path), added)
    except (ValueError, TypeError, RecursionError) as error:
        raise ModelFileError(path, f"keeps a tokenizer that cannot be used: {error}") from error


def _bytes(stored: object, path: Path) -> bytes:
    if isinstance(stored, list):
        return bytes(stored)
    if not isinstance(stored, ArraySummary) or stored.type_id != _UINT8:
        raise ValueError(f"{MODEL_KEY} is no list of bytes")
    if stored.length > MAX_BYTES:
        raise ValueError(f"{MODEL_KEY} has {stored.length} bytes")
    with path.open("rb") as file:
        file.seek(stored.offset)
        return file.read(stored.length)

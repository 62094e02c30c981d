"""SentencePiece BPE (Llama 1 and 2, Mistral, Gemma, ...): ``tokenizer.ggml.model`` = "llama".

llama.cpp merges the neighbouring pair whose joined text has the highest score, so each token needs
a score. A SentencePiece model has them; a tokenizer.json has an ordered list of merges instead,
whose order gives them back.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from mofa_gguf.convert.errors import TokenizerError
from mofa_gguf.convert.tokenizer.added import place_added
from mofa_gguf.convert.tokenizer.hf_json import AddedToken, TokenizerJson
from mofa_gguf.convert.tokenizer.sentencepiece_model import Piece, SentencePieceModel
from mofa_gguf.convert.tokenizer.vocabulary import (
    KindVocabulary,
    TokenLists,
    TokenTable,
    TokenType,
)

BYTE_TOKEN = re.compile(r"<0x[0-9A-F]{2}>")
_SPACE = "\u2581"


def read_spm_model(
    model: SentencePieceModel, added: Sequence[AddedToken], name: str, *, n_vocab: int
) -> KindVocabulary:
    """Tables of a SentencePiece BPE model. Raises TokenizerError without byte fallback."""
    table = TokenTable(n_vocab, added=(token.id for token in added))
    place_pieces(table, model.pieces)
    place_added(table, added, escaped_spaces=True)
    return _spm(table, model.add_dummy_prefix, name)


def read_spm_json(source: TokenizerJson, *, n_vocab: int) -> KindVocabulary:
    """Tables of a SentencePiece-like BPE that is only there as a tokenizer.json."""
    vocabulary = source.vocabulary_mapping()
    scores = _scores_from_merges(source.merges())
    lowest = -float(len(scores) + 1)
    unknown = source.model.get("unk_token")
    table = TokenTable(n_vocab, added=(token.id for token in source.added))
    for text, token in vocabulary.items():
        kind = TokenType.NORMAL
        if text == unknown:
            kind = TokenType.UNKNOWN
        elif BYTE_TOKEN.fullmatch(text):
            kind = TokenType.BYTE
        table.place(token, text, kind, scores.get(text, lowest))
    place_added(table, source.added, escaped_spaces=True)
    return _spm(table, prepends_space(source), str(source.path))


def place_pieces(table: TokenTable, pieces: Iterable[Piece]) -> None:
    """Enter SentencePiece pieces; user-defined ones are looked for in raw text (see added)."""
    for token, piece in enumerate(pieces):
        kind, text = piece.type, piece.text
        if kind is TokenType.USER_DEFINED:
            text = text.replace(_SPACE, " ")
        elif kind is TokenType.BYTE and not BYTE_TOKEN.fullmatch(text):
            kind = TokenType.NORMAL
        table.place(token, text, kind, piece.score)


def prepends_space(source: TokenizerJson) -> bool:
    """Whether the tokenizer puts a space in front of a text (a Prepend step, or Metaspace)."""
    if source.step("normalizer", "Prepend") is not None:
        return True
    metaspace = source.step("pre_tokenizer", "Metaspace")
    if metaspace is None:
        return False
    scheme = metaspace.get("prepend_scheme")
    if scheme is None:
        return metaspace.get("add_prefix_space") is not False
    return bool(scheme != "never")


def _scores_from_merges(merges: Iterable[tuple[str, str]]) -> dict[str, float]:
    """Minus the rank of the first merge that makes a token."""
    scores: dict[str, float] = {}
    for rank, (left, right) in enumerate(merges):
        scores.setdefault(left + right, -float(rank))
    return scores


def _spm(table: TokenTable, add_space_prefix: bool, name: str) -> KindVocabulary:
    lists = table.finish()
    _require_byte_tokens(lists, name)
    return KindVocabulary(
        "spm",
        "llama",
        lists,
        with_scores=True,
        add_space_prefix=add_space_prefix,
        warnings=tuple(table.warnings),
    )


def _require_byte_tokens(lists: TokenLists, name: str) -> None:
    """llama.cpp writes unknown characters as byte tokens, and ends the process without them."""
    present = set(lists.texts)
    if any(f"<0x{byte:02X}>" not in present for byte in range(256)):
        raise TokenizerError(
            f"{name}: the SentencePiece BPE vocabulary has no byte tokens (byte_fallback), "
            "and llama.cpp cannot tokenize unknown characters without them"
        )

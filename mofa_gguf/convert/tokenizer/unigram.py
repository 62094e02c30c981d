"""SentencePiece unigram (T5 and relatives): ``tokenizer.ggml.model`` = "t5"."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence

from mofa_gguf.convert.errors import TokenizerError
from mofa_gguf.convert.tokenizer.added import place_added
from mofa_gguf.convert.tokenizer.charsmap import check_charsmap
from mofa_gguf.convert.tokenizer.hf_json import AddedToken, TokenizerJson
from mofa_gguf.convert.tokenizer.sentencepiece_model import SentencePieceModel
from mofa_gguf.convert.tokenizer.spm import BYTE_TOKEN, place_pieces, prepends_space
from mofa_gguf.convert.tokenizer.vocabulary import KindVocabulary, TokenTable, TokenType

_MAX_SCORE = 1e30


def read_unigram_model(
    model: SentencePieceModel, added: Sequence[AddedToken], name: str, *, n_vocab: int
) -> KindVocabulary:
    """Tables of a SentencePiece unigram model."""
    table = TokenTable(n_vocab, added=(token.id for token in added))
    place_pieces(table, model.pieces)
    place_added(table, added, escaped_spaces=True)
    return _unigram(
        table,
        name,
        charsmap=model.precompiled_charsmap,
        add_space_prefix=model.add_dummy_prefix,
        remove_extra_whitespaces=model.remove_extra_whitespaces,
    )


def read_unigram_json(source: TokenizerJson, *, n_vocab: int) -> KindVocabulary:
    """Tables of a Unigram tokenizer.json."""
    unknown = source.model.get("unk_id")
    byte_fallback = source.model.get("byte_fallback") is True
    table = TokenTable(n_vocab, added=(token.id for token in source.added))
    for token, (text, score) in enumerate(_scored_vocabulary(source)):
        kind = TokenType.NORMAL
        if token == unknown:
            kind = TokenType.UNKNOWN
        elif byte_fallback and BYTE_TOKEN.fullmatch(text):
            kind = TokenType.BYTE
        table.place(token, text, kind, score)
    place_added(table, source.added, escaped_spaces=True)
    return _unigram(
        table,
        str(source.path),
        charsmap=_charsmap(source),
        add_space_prefix=prepends_space(source),
        remove_extra_whitespaces=_removes_spaces(source),
    )


def _scored_vocabulary(source: TokenizerJson) -> list[tuple[str, float]]:
    raw = source.model.get("vocab")
    if not isinstance(raw, list):
        raise source.broken("model.vocab is no list of tokens and scores")
    vocabulary = []
    for entry in raw:
        if (
            not isinstance(entry, list)
            or len(entry) != 2
            or not isinstance(entry[0], str)
            or isinstance(entry[1], bool)
            or not isinstance(entry[1], int | float)
            or not -_MAX_SCORE <= entry[1] <= _MAX_SCORE
        ):
            raise source.broken(f"{entry!r:.60} is no token with a score")
        vocabulary.append((entry[0], float(entry[1])))
    return vocabulary


def _charsmap(source: TokenizerJson) -> bytes:
    step = source.step("normalizer", "Precompiled")
    encoded = None if step is None else step.get("precompiled_charsmap")
    if encoded is None:
        return b""
    try:
        return base64.b64decode(encoded, validate=True)
    except (TypeError, ValueError, binascii.Error) as error:
        raise source.broken(f"precompiled_charsmap is not base64 ({error})") from error


def _removes_spaces(source: TokenizerJson) -> bool:
    """Whether runs of spaces count as one: text is split at white space, or they are replaced."""
    if source.step("pre_tokenizer", "WhitespaceSplit") is not None:
        return True
    for step in source.steps("normalizer"):
        pattern = step.get("pattern")
        if step.get("type") != "Replace" or not isinstance(pattern, dict):
            continue
        if pattern.get("Regex") in (" {2,}", " +", "\\s+"):
            return True
    return False


def _unigram(
    table: TokenTable,
    name: str,
    *,
    charsmap: bytes,
    add_space_prefix: bool,
    remove_extra_whitespaces: bool,
) -> KindVocabulary:
    lists = table.finish()
    if charsmap:
        check_charsmap(charsmap, name)
    if int(TokenType.UNKNOWN) not in lists.types:
        raise TokenizerError(f"{name}: a unigram vocabulary needs an unknown token")
    return KindVocabulary(
        "unigram",
        "t5",
        lists,
        with_scores=True,
        add_space_prefix=add_space_prefix,
        remove_extra_whitespaces=remove_extra_whitespaces,
        precompiled_charsmap=charsmap,
        warnings=tuple(table.warnings),
    )

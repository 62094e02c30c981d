"""Which tokenizer a checkpoint folder holds, opened: its tables, and its own tokenizer to run.

tokenizer.json comes first, as it is what transformers runs and says everything; a SentencePiece
model beside it gives the exact scores. Then tokenizer.model alone, then the older pairs of files.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from mofa_gguf.convert.errors import TokenizerError
from mofa_gguf.convert.tokenizer.added import (
    from_added_tokens_json,
    from_tokenizer_config,
    missing_entries,
    token_type,
)
from mofa_gguf.convert.tokenizer.files import (
    MAX_VOCABULARY_BYTES,
    parse_json_object,
    read_bytes,
    read_json,
    read_text,
)
from mofa_gguf.convert.tokenizer.hf_json import AddedToken, TokenizerJson
from mofa_gguf.convert.tokenizer.reference import (
    HuggingFaceReference,
    ReferenceTokenizer,
    SentencePieceReference,
)
from mofa_gguf.convert.tokenizer.vocabulary import KindVocabulary, TokenType

# The readers of the kinds are imported where one is wanted: a checkpoint has one kind.
if TYPE_CHECKING:
    from mofa_gguf.convert.tokenizer.sentencepiece_model import SentencePieceModel

logger = logging.getLogger(__name__)

_MODEL_FILES = ("tokenizer.model", "spiece.model")
_LOOKED_FOR = (
    "tokenizer.json, tekken.json, tokenizer.model, spiece.model, vocab.json with merges.txt, "
    "vocab.txt"
)


class TokenizerSource(NamedTuple):
    """An opened tokenizer.

    ``document`` is its tokenizer.json, where there is one (or one was built from older files).
    ``token_ids`` maps texts to ids, for special tokens named by text. ``runs_post_processor`` says
    that the reference adds special tokens as the checkpoint wants; else ``default_add`` (bos, eos)
    holds where the configuration is silent. ``known_ids`` are the ids that a SentencePiece model
    names itself.
    """

    tables: KindVocabulary
    reference: ReferenceTokenizer
    document: TokenizerJson | None
    token_ids: Mapping[str, int]
    runs_post_processor: bool = True
    default_add: tuple[bool, bool] = (False, False)
    known_ids: Mapping[str, int] = MappingProxyType({})
    warnings: tuple[str, ...] = ()


def open_source(
    folder: Path, *, tokenizer_config: Mapping[str, object], n_vocab: int
) -> TokenizerSource:
    """Find and open the folder's tokenizer. Raises TokenizerError, naming what was looked for."""
    added = _listed_added_tokens(folder, tokenizer_config)
    document = _read_document(folder)
    if document is not None:
        document = document.with_added(missing_entries(document, added))
        return _from_document(document, folder, n_vocab=n_vocab)
    from mofa_gguf.convert.tokenizer.tekken import read_tekken, tekken_roles

    document = read_tekken(folder)
    if document is not None:
        source = _from_document(document, folder, n_vocab=n_vocab)
        return source._replace(known_ids=tekken_roles(document))
    model_file = _read_model_file(folder)
    if model_file is not None:
        return _from_model(*model_file, added, n_vocab=n_vocab)
    from mofa_gguf.convert.tokenizer.legacy import read_vocab_and_merges, read_vocab_txt

    settings = (tokenizer_config, read_json(folder, "special_tokens_map.json"))
    document = read_vocab_and_merges(folder, settings, added)
    if document is None:
        document = read_vocab_txt(folder, settings, added)
    if document is not None:
        return _from_document(document, folder, n_vocab=n_vocab)
    raise TokenizerError(f"{folder}: there is no tokenizer; looked for {_LOOKED_FOR}")


def _read_document(folder: Path) -> TokenizerJson | None:
    text = read_text(folder, "tokenizer.json", max_bytes=MAX_VOCABULARY_BYTES)
    if text is None:
        return None
    path = folder / "tokenizer.json"
    return TokenizerJson(parse_json_object(text, path), text, path)


def _read_model_file(folder: Path) -> tuple[SentencePieceModel, bytes, str] | None:
    for name in _MODEL_FILES:
        data = read_bytes(folder, name, max_bytes=MAX_VOCABULARY_BYTES)
        if data is not None:
            from mofa_gguf.convert.tokenizer.sentencepiece_model import parse_sentencepiece

            return parse_sentencepiece(data, str(folder / name)), data, str(folder / name)
    return None


def _listed_added_tokens(folder: Path, tokenizer_config: Mapping[str, object]) -> list[AddedToken]:
    """Added tokens outside tokenizer.json; tokenizer_config.json knows which are special."""
    path = folder / "added_tokens.json"
    tokens = from_added_tokens_json(read_json(folder, path.name), path)
    tokens += from_tokenizer_config(tokenizer_config, folder / "tokenizer_config.json")
    return list({token.id: token for token in tokens}.values())


def _from_document(document: TokenizerJson, folder: Path, *, n_vocab: int) -> TokenizerSource:
    tables = _document_tables(document, folder, n_vocab=n_vocab)
    reference = HuggingFaceReference(document)
    ids = reference.added_ids()
    moved = [token for token in document.added if ids.get(token.content, token.id) != token.id]
    warnings = []
    if moved:
        document = document.renumbered(ids)
        tables = _document_tables(document, folder, n_vocab=n_vocab)
        warnings.append(
            f"{len(moved)} added tokens have other ids than {document.path.name} says, because the "
            f"tokenizers library counts on from the vocabulary ({moved[0].content!r:.60}: "
            f"{ids[moved[0].content]}, not {moved[0].id})"
        )
    within = document.within(n_vocab)
    if within is not document:
        reference = HuggingFaceReference(within)
    has_texts = document.model_type in ("BPE", "WordPiece")
    token_ids = dict(document.vocabulary_mapping()) if has_texts else {}
    token_ids.update((token.content, token.id) for token in document.added)
    return TokenizerSource(
        tables,
        reference,
        within,
        token_ids,
        runs_post_processor=document.section("post_processor") is not None,
        warnings=tuple(warnings),
    )


def _document_tables(document: TokenizerJson, folder: Path, *, n_vocab: int) -> KindVocabulary:
    if document.model_type == "WordPiece":
        from mofa_gguf.convert.tokenizer.wordpiece import read_wordpiece

        return read_wordpiece(document, n_vocab=n_vocab)
    if document.model_type == "Unigram":
        from mofa_gguf.convert.tokenizer.unigram import read_unigram_json

        return read_unigram_json(document, n_vocab=n_vocab)
    if document.model_type != "BPE":
        raise document.broken(
            f"a tokenizer of type {document.model_type!r:.40} cannot be expressed in a GGUF file; "
            "BPE, Unigram and WordPiece can"
        )
    if is_byte_level(document):
        from mofa_gguf.convert.tokenizer.bpe import read_byte_level_bpe

        return read_byte_level_bpe(document, n_vocab=n_vocab)
    if document.model.get("byte_fallback") is not True:
        raise document.broken(
            "its BPE is neither byte-level nor has byte_fallback, so llama.cpp cannot run it"
        )
    from mofa_gguf.convert.tokenizer.spm import read_spm_json, read_spm_model

    model = _matching_model(document, folder)
    if model is not None:
        return read_spm_model(model, document.added, str(document.path), n_vocab=n_vocab)
    return read_spm_json(document, n_vocab=n_vocab)


def is_byte_level(document: TokenizerJson) -> bool:
    """Whether the tokens are spelled in the 256 characters that stand for bytes."""
    return any(
        document.step(section, "ByteLevel") is not None for section in ("pre_tokenizer", "decoder")
    )


def _matching_model(document: TokenizerJson, folder: Path) -> SentencePieceModel | None:
    """The SentencePiece BPE model beside a tokenizer.json, if it has the same tokens."""
    from mofa_gguf.convert.tokenizer.sentencepiece_model import (
        ModelType,
        looks_like_tiktoken,
        parse_sentencepiece,
    )

    for name in _MODEL_FILES:
        data = read_bytes(folder, name, max_bytes=MAX_VOCABULARY_BYTES)
        if data is None or looks_like_tiktoken(data):
            continue
        try:
            model = parse_sentencepiece(data, str(folder / name))
        except TokenizerError as error:
            # Not needed: the merges give the scores back.
            logger.info("%s; going by tokenizer.json", error)
            continue
        vocabulary = document.vocabulary_mapping()
        same = all(
            vocabulary.get(piece.text, token) == token for token, piece in enumerate(model.pieces)
        )
        if model.model_type is ModelType.BPE and same:
            return model
    return None


def _from_model(
    model: SentencePieceModel,
    data: bytes,
    name: str,
    added: Sequence[AddedToken],
    *,
    n_vocab: int,
) -> TokenizerSource:
    from mofa_gguf.convert.tokenizer.sentencepiece_model import ModelType
    from mofa_gguf.convert.tokenizer.spm import read_spm_model
    from mofa_gguf.convert.tokenizer.unigram import read_unigram_model

    if model.model_type is ModelType.BPE:
        tables = read_spm_model(model, added, name, n_vocab=n_vocab)
        default_add = (True, False)
    elif model.model_type is ModelType.UNIGRAM:
        tables = read_unigram_model(model, added, name, n_vocab=n_vocab)
        default_add = (False, True)
    else:
        raise TokenizerError(
            f"{name}: a SentencePiece model of type {model.model_type.name.lower()} cannot be "
            "expressed in a GGUF file; BPE and unigram can"
        )
    token_ids = {piece.text: token for token, piece in enumerate(model.pieces)}
    token_ids.update((token.content, token.id) for token in added)
    return TokenizerSource(
        tables,
        SentencePieceReference(data, name, added=_text_tokens(added, n_vocab)),
        None,
        token_ids,
        runs_post_processor=False,
        default_add=default_add,
        known_ids=model.ids,
    )


def _text_tokens(added: Sequence[AddedToken], n_vocab: int) -> dict[str, int]:
    """Added tokens that are text (not control tokens), spelled as they stand in a text."""
    return {
        token.content.replace("\u2581", " "): token.id
        for token in added
        if token.id < n_vocab and token_type(token) is TokenType.USER_DEFINED
    }

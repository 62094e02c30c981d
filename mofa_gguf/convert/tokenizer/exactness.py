"""What a file must hold so that text is tokenized exactly as the checkpoint does it.

Nothing, where llama.cpp agrees on every text there is to try. Else the Unicode form, where that is
all that is missing; else the checkpoint's whole tokenizer. See
:mod:`mofa_gguf.engine.tokens.exact`, which reads them again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from mofa_gguf.convert.metadata import Metadata
from mofa_gguf.convert.tokenizer.battery import FULL
from mofa_gguf.convert.tokenizer.hf_json import TokenizerJson
from mofa_gguf.convert.tokenizer.rare import RareText, rare_texts
from mofa_gguf.convert.tokenizer.reference import (
    HuggingFaceReference,
    ReferenceTokenizer,
    SentencePieceReference,
)
from mofa_gguf.engine.tokens.exact import exact_tokenizer
from mofa_gguf.engine.tokens.kept_sentencepiece import ADDED_KEY, MODEL_KEY
from mofa_gguf.engine.tokens.kept_tokenizer import KEPT_KEY
from mofa_gguf.engine.tokens.normalizing import FORM_KEY, UnicodeForm
from mofa_gguf.engine.tokens.vocab import Vocab


class Kept(Enum):
    """What of the checkpoint's tokenizer the file keeps beside llama.cpp's vocabulary."""

    NOTHING = "nothing"
    NORMALIZER = "normalizer"
    TOKENIZER = "tokenizer"


@dataclass(frozen=True)
class Exactness:
    """The outcome: what is kept, and how llama.cpp alone did on rare texts.

    ``n_rare_agree`` of ``n_rare`` texts gave the same tokens; ``first`` is the first that did not.
    """

    kept: Kept = Kept.NOTHING
    metadata: Metadata = field(default_factory=Metadata, repr=False, compare=False)
    n_rare: int = 0
    n_rare_agree: int = 0
    first: RareText | None = None


def measure_exactness(
    vocab: Vocab,
    reference: ReferenceTokenizer,
    document: TokenizerJson | None,
    *,
    kind: str,
    agrees: bool,
) -> Exactness:
    """What of the tokenizer to keep, and how ``vocab``, as llama.cpp reads it, does on rare texts.

    ``agrees`` says whether it gave the reference's tokens for all texts of the battery; where it
    did not, rare texts are tried only if they can change what is kept. A WordPiece tokenizer is
    always kept: llama.cpp's splits many scripts in other places, and a small vocabulary hides that
    in unknown tokens. Where there is no ``document``, a SentencePiece model stands alone, and is
    kept as it is.
    """
    form = None
    if kind == "bpe" and isinstance(reference, HuggingFaceReference):
        form = reference.only_form
    if not agrees and form is None:
        return Exactness(*_whole(reference, document))
    rare = list(rare_texts(() if document is None else document.added))
    if not isinstance(reference, HuggingFaceReference):
        rare = [item for item in rare if not item.parse_special]
    expected = [_expected(reference, item) for item in rare]
    differing = [
        item
        for item, tokens in zip(rare, expected, strict=True)
        if vocab.tokenize_natively(item.text, parse_special=item.parse_special) != tokens
    ]
    kept, metadata = Kept.NOTHING, Metadata()
    if differing or not agrees or (kind == "wordpiece" and document is not None):
        kept, metadata = _whole(reference, document)
        if form is not None and _normalizing_agrees(
            vocab, reference, form, zip(rare, expected, strict=True)
        ):
            kept, metadata = Kept.NORMALIZER, Metadata()
            metadata.string(FORM_KEY, form)
    first = next(iter(differing), None)
    return Exactness(kept, metadata, len(rare), len(rare) - len(differing), first)


def _whole(reference: ReferenceTokenizer, document: TokenizerJson | None) -> tuple[Kept, Metadata]:
    """The whole tokenizer for the file, in the form that it has."""
    metadata = Metadata()
    if document is not None:
        metadata.string(KEPT_KEY, document.compact())
    elif isinstance(reference, SentencePieceReference):
        metadata.uint8s(MODEL_KEY, reference.model)
        if reference.pieces.added:
            added_tokens = json.dumps(reference.pieces.added, ensure_ascii=False)
            metadata.string(ADDED_KEY, added_tokens)
    else:
        return Kept.NOTHING, metadata
    return Kept.TOKENIZER, metadata


def _expected(reference: ReferenceTokenizer, item: RareText) -> list[int]:
    if item.parse_special:
        assert isinstance(reference, HuggingFaceReference)
        return reference.encode_with_control(item.text)
    return reference.encode(item.text)


def _normalizing_agrees(
    vocab: Vocab,
    reference: ReferenceTokenizer,
    form: UnicodeForm,
    rare: Iterable[tuple[RareText, list[int]]],
) -> bool:
    tokenizer = exact_tokenizer(vocab, {FORM_KEY: form}, Path())
    assert tokenizer is not None

    def tokens(text: str, parse_special: bool) -> list[int]:
        return tokenizer.tokenize(text, parse_special=parse_special, continues=False)

    return all(tokens(i.text, False) == reference.encode(i.text) for i in FULL) and all(
        tokens(item.text, item.parse_special) == expected for item, expected in rare
    )

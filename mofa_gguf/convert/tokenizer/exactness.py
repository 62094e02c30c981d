"""What a file must hold so that text is tokenized exactly as the checkpoint does it.

Nothing, where llama.cpp agrees on every text there is to try. Else the Unicode form, where that is
all that is missing; else the checkpoint's whole tokenizer. See
:mod:`mofa_gguf.engine.tokens.exact`, which reads them again.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import NamedTuple

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

    def with_rare(self, rare: RareOutcome) -> Exactness:
        """The same, with what came out for rare texts."""
        n_rare, n_differing = len(rare.texts), len(rare.differing)
        first = next(iter(rare.differing), None)
        return replace(self, n_rare=n_rare, n_rare_agree=n_rare - n_differing, first=first)


class RareOutcome(NamedTuple):
    """Rare texts, the reference's tokens of each, and the texts for which llama.cpp gave others."""

    texts: list[RareText]
    expected: list[list[int]]
    differing: list[RareText]


def is_kept_in_any_case(kind: str, document: TokenizerJson | None) -> bool:
    """Whether the tokenizer is kept, however llama.cpp does on the battery.

    A WordPiece tokenizer is: llama.cpp's splits many scripts in other places, and a small
    vocabulary hides that in unknown tokens.
    """
    return kind == "wordpiece" and document is not None


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
    did not, rare texts are tried only if they can change what is kept. Where there is no
    ``document``, a SentencePiece model stands alone, and is kept as it is.
    """
    form = None
    if kind == "bpe" and isinstance(reference, HuggingFaceReference):
        form = reference.only_form
    if not agrees and form is None:
        return keeping_all(reference, document)
    rare = try_rare_texts(vocab, reference, document)
    exactness = Exactness()
    if rare.differing or not agrees or is_kept_in_any_case(kind, document):
        if form is not None and _normalizing_agrees(vocab, reference, form, rare):
            metadata = Metadata()
            metadata.string(FORM_KEY, form)
            exactness = Exactness(Kept.NORMALIZER, metadata)
        else:
            exactness = keeping_all(reference, document)
    return exactness.with_rare(rare)


def try_rare_texts(
    vocab: Vocab, reference: ReferenceTokenizer, document: TokenizerJson | None
) -> RareOutcome:
    """Tokenize rare texts as llama.cpp alone does and as the reference does."""
    texts = list(rare_texts(() if document is None else document.added))
    if not isinstance(reference, HuggingFaceReference):
        texts = [item for item in texts if not item.parse_special]
    expected = [_expected(reference, item) for item in texts]
    differing = [
        item
        for item, tokens in zip(texts, expected, strict=True)
        if vocab.tokenize_natively(item.text, parse_special=item.parse_special) != tokens
    ]
    return RareOutcome(texts, expected, differing)


def keeping_all(reference: ReferenceTokenizer, document: TokenizerJson | None) -> Exactness:
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
        return Exactness()
    return Exactness(Kept.TOKENIZER, metadata)


def _expected(reference: ReferenceTokenizer, item: RareText) -> list[int]:
    if item.parse_special:
        assert isinstance(reference, HuggingFaceReference)
        return reference.encode_with_control(item.text)
    return reference.encode(item.text)


def _normalizing_agrees(
    vocab: Vocab, reference: ReferenceTokenizer, form: UnicodeForm, rare: RareOutcome
) -> bool:
    tokenizer = exact_tokenizer(vocab, {FORM_KEY: form}, Path())
    assert tokenizer is not None

    def tokens(text: str, parse_special: bool) -> list[int]:
        return tokenizer.tokenize(text, parse_special=parse_special, continues=False)

    return all(tokens(i.text, False) == reference.encode(i.text) for i in FULL) and all(
        tokens(item.text, item.parse_special) == expected
        for item, expected in zip(rare.texts, rare.expected, strict=True)
    )

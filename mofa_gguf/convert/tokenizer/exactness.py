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
    n_rare: int = 0
    n_rare_agree: int = 0
    first: RareText | None = None
    metadata: Metadata = field(default_factory=Metadata, repr=False, compare=False)


def measure_exactness(
    vocab: Vocab, reference: ReferenceTokenizer, document: TokenizerJson | None, *, kind: str
) -> Exactness:
    """Try ``vocab``, as llama.cpp reads it, on the battery and on rare texts.

    A WordPiece tokenizer is always kept: llama.cpp's splits many scripts in other places, and a
    small vocabulary hides that in unknown tokens. Where there is no ``document``, a SentencePiece
    model stands alone, and is kept as it is.
    """
    added = () if document is None else document.added
    rare = list(rare_texts(added))
    if not isinstance(reference, HuggingFaceReference):
        rare = [item for item in rare if not item.parse_special]
    expected = [_expected(reference, item) for item in rare]
    differing = [
        item
        for item, tokens in zip(rare, expected, strict=True)
        if vocab.tokenize_natively(item.text, parse_special=item.parse_special) != tokens
    ]
    agrees = not differing and all(
        vocab.tokenize_natively(item.text) == reference.encode(item.text) for item in FULL
    )
    metadata = Metadata()
    kept = Kept.NOTHING
    if document is not None and (kind == "wordpiece" or not agrees):
        kept = Kept.TOKENIZER
        assert isinstance(reference, HuggingFaceReference)
        form = reference.only_form if kind == "bpe" else None
        if form is not None and _normalizing_agrees(
            vocab, reference, form, zip(rare, expected, strict=True)
        ):
            kept = Kept.NORMALIZER
            metadata.string(FORM_KEY, form)
        else:
            metadata.string(KEPT_KEY, document.compact())
    elif isinstance(reference, SentencePieceReference) and not agrees:
        kept = Kept.TOKENIZER
        metadata.uint8s(MODEL_KEY, reference.model)
        if reference.pieces.added:
            added_tokens = json.dumps(reference.pieces.added, ensure_ascii=False)
            metadata.string(ADDED_KEY, added_tokens)
    return Exactness(
        kept, len(rare), len(rare) - len(differing), next(iter(differing), None), metadata
    )


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

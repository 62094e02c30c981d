"""What a GGUF file holds so that text is tokenized exactly as by the model's own tokenizer.

    kept_tokenizer  the whole tokenizer, where llama.cpp's differs in more than the next
    kept_sentencepiece  the same for a SentencePiece model that stands alone
    normalizing     a Unicode form that the tokenizer brings text into and llama.cpp does not

The converter writes one of them where it measured that llama.cpp alone cannot agree; files without
either are left to llama.cpp.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from mofa_gguf.engine.errors import ModelFileError
from mofa_gguf.engine.tokens.kept_sentencepiece import KeptSentencePiece, stored_pieces
from mofa_gguf.engine.tokens.kept_tokenizer import KEPT_KEY, KeptTokenizer
from mofa_gguf.engine.tokens.normalizing import FORM_KEY, FORMS, NormalizingTokenizer

if TYPE_CHECKING:
    from mofa_gguf.engine.tokens.vocab import Vocab


class ExactTokenizer(Protocol):
    """Text to tokens, as the checkpoint's tokenizer does it."""

    def tokenize(self, text: str, *, parse_special: bool, continues: bool) -> list[int]:
        """See :meth:`mofa_gguf.engine.tokens.vocab.Vocab.tokenize`."""
        ...


def exact_tokenizer(vocab: Vocab, metadata: Mapping[str, Any], path: Path) -> ExactTokenizer | None:
    """The file's own tokenizer; None where llama.cpp is enough. Raises ModelFileError.

    ``vocab`` keeps what is made here, so it is only referred to weakly.
    """
    owner = weakref.proxy(vocab)

    def natively(text: str, parse_special: bool = False) -> list[int]:
        tokens: list[int] = owner.tokenize_natively(text, parse_special=parse_special)
        return tokens

    kept = metadata.get(KEPT_KEY)
    if kept is not None:
        if not isinstance(kept, str):
            raise ModelFileError(path, f"{KEPT_KEY} is no text")
        return KeptTokenizer(
            kept,
            path,
            n_tokens=vocab.n_tokens,
            is_control=lambda token: bool(owner.is_control(token)),
            natively=natively,
        )
    pieces = stored_pieces(metadata, path)
    if pieces is not None:
        control = {vocab.text(i): i for i in range(vocab.n_tokens) if vocab.is_control(i)}
        return KeptSentencePiece(pieces, path, n_tokens=vocab.n_tokens, control=control)
    form = metadata.get(FORM_KEY)
    if form is None:
        return None
    if form not in FORMS:
        raise ModelFileError(path, f"{FORM_KEY} is {form!r:.20}; there are {', '.join(FORMS)}")
    return NormalizingTokenizer(
        form,
        natively,
        control=vocab.control_texts(),
        defined=vocab.user_defined_texts(),
    )

"""The checkpoint's own tokenizer, run by the library that defines it.

`tokenizers` runs tokenizer.json (and what can be rebuilt as one), `sentencepiece` runs
tokenizer.model. Text is always encoded literally: control tokens written out in it stay text.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping
from typing import Protocol, TypeVar

from mofa_gguf.convert.errors import TokenizerError
from mofa_gguf.convert.tokenizer.added import token_type
from mofa_gguf.convert.tokenizer.hf_json import TokenizerJson
from mofa_gguf.convert.tokenizer.vocabulary import TokenType
from mofa_gguf.engine.tokens import library_tokenizer as library
from mofa_gguf.engine.tokens.kept_sentencepiece import SentencePieces
from mofa_gguf.engine.tokens.normalizing import FORMS, UnicodeForm

T = TypeVar("T")
_MOST_REMEMBERED = 256
"""Texts whose tokens are kept: the battery is asked for several times."""


class ReferenceTokenizer(Protocol):
    """What the converter compares llama.cpp with."""

    def encode(self, text: str) -> list[int]:
        """Token ids of ``text``, no special tokens added, none read from the text."""
        ...

    def normalize(self, text: str) -> str:
        """``text`` in the form that the tokenizer brings characters into (NFC and the like)."""
        ...

    def surroundings(self) -> tuple[list[int], list[int]]:
        """Ids that the tokenizer puts in front of and behind a single text."""
        ...


def shielded(what: str, call: Callable[[], T]) -> T:
    """Run a call into the `tokenizers` library; whatever it throws becomes TokenizerError."""
    try:
        return library.shielded(call)
    except library.LibraryFailure as error:
        raise TokenizerError(f"{what} ({error})") from error


class HuggingFaceReference:
    """A tokenizer.json run by the `tokenizers` library."""

    def __init__(self, source: TokenizerJson) -> None:
        self._name = str(source.path)
        # What the file will mark as control must not come of text, whatever tokenizer.json says.
        control = {t.content for t in source.added if token_type(t) is TokenType.CONTROL}
        self._tokenizer = shielded(
            f"{self._name}: the tokenizers library cannot load it",
            lambda: library.library_tokenizer(
                source.text,
                lambda added: control.intersection(token.content for token in added.values()),
            ),
        )
        self._encoded: dict[str, list[int]] = {}
        normalizing = [step.get("type") for step in source.steps("normalizer")]
        self._forms = [form for form in FORMS if form in normalizing]
        # The form that is all of its normalization, if it is one.
        self.only_form: UnicodeForm | None = (
            self._forms[0] if len(normalizing) == 1 and self._forms else None
        )
        # BERT's lower-casing and accent stripping are Unicode work too.
        self._bert = source.step("normalizer", "BertNormalizer") is not None

    def encode(self, text: str) -> list[int]:
        """See ReferenceTokenizer."""
        tokens = self._encoded.get(text)
        if tokens is None:
            tokens = self._encode(text)
            if len(self._encoded) < _MOST_REMEMBERED:
                self._encoded[text] = tokens
        return list(tokens)

    def _encode(self, text: str, *, parse_special: bool = False) -> list[int]:
        return shielded(
            f"{self._name}: the tokenizers library cannot encode {text[:30]!r}",
            lambda: self._tokenizer.encode(text, parse_special=parse_special),
        )

    def encode_with_control(self, text: str) -> list[int]:
        """Like :meth:`encode`, but control tokens written out in the text are read as tokens."""
        return self._encode(text, parse_special=True)

    def added_ids(self) -> dict[str, int]:
        """The ids that the library gives to added tokens, by their texts."""
        added = shielded(self._name, self._tokenizer.added)
        return {token.content: number for number, token in added.items()}

    def normalize(self, text: str) -> str:
        """See ReferenceTokenizer."""
        for form in self._forms:
            text = unicodedata.normalize(form, text)
        if self._bert:
            text = shielded(
                f"{self._name}: the normalizer failed on {text[:30]!r}",
                lambda: str(self._tokenizer.normalizer.normalize_str(text)),
            )
        return text

    def words(self, text: str) -> list[str]:
        """The pieces into which the pre-tokenizer splits ``text``, as the model sees them."""

        def split() -> list[str]:
            if self._tokenizer.normalizer is not None:
                normalized = self._tokenizer.normalizer.normalize_str(text)
            else:
                normalized = text
            if self._tokenizer.pre_tokenizer is None:
                return [normalized]
            return [w for w, _ in self._tokenizer.pre_tokenizer.pre_tokenize_str(normalized)]

        return shielded(f"{self._name}: the pre-tokenizer failed on {text[:30]!r}", split)

    def surroundings(self) -> tuple[list[int], list[int]]:
        """See ReferenceTokenizer."""

        def both() -> tuple[list[int], list[int]]:
            encode = self._tokenizer.encode
            return encode("a"), encode("a", add_special=True)

        plain, full = shielded(f"{self._name}: the tokenizers library cannot encode 'a'", both)
        for start in range(len(full) - len(plain) + 1):
            if full[start : start + len(plain)] == plain:
                return full[:start], full[start + len(plain) :]
        return [], []


class SentencePieceReference:
    """A tokenizer.model run by the `sentencepiece` library.

    ``added`` are tokens listed outside the model: as transformers does, they are taken out of the
    text first, and what lies between them is encoded piece by piece.
    """

    def __init__(self, data: bytes, name: str, *, added: Mapping[str, int]) -> None:
        self.model = data
        try:
            self.pieces = SentencePieces(data, added)
        except ValueError as error:
            raise TokenizerError(f"{name}: {error}") from error

    def encode(self, text: str) -> list[int]:
        """See ReferenceTokenizer."""
        return self.pieces.encode(text)

    def normalize(self, text: str) -> str:
        """See ReferenceTokenizer. llama.cpp has SentencePiece's own rules, or none are needed."""
        return text

    def surroundings(self) -> tuple[list[int], list[int]]:
        """See ReferenceTokenizer. The model file itself adds nothing; configs say what is added."""
        return [], []

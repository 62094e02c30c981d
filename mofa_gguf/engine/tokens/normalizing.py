"""Unicode normalization in front of llama.cpp, which has none.

Most tokenizers that llama.cpp cannot match differ in this alone: they bring text into NFC first.
Such a file names the form (:data:`FORM_KEY`), and text that is in it already, nearly all there is,
goes to llama.cpp as it stands.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable
from typing import Literal

from mofa_gguf.engine.tokens.spellings import TokenMemo, chunks, pattern_of

FORM_KEY = "mofa_gguf.unicode_normalization"
UnicodeForm = Literal["NFC", "NFD", "NFKC", "NFKD"]
FORMS: tuple[UnicodeForm, ...] = ("NFC", "NFD", "NFKC", "NFKD")


class NormalizingTokenizer:
    """Brings text into a Unicode form and leaves the rest to ``natively`` (text, parse_special).

    ``control`` and ``defined`` are the spellings of control tokens and of user-defined tokens: a
    spelled token is taken out first, so that a mark behind it cannot grow together with it, and no
    control token comes of what had to be normalized.
    """

    def __init__(
        self,
        form: UnicodeForm,
        natively: Callable[[str, bool], list[int]],
        *,
        control: Iterable[str],
        defined: Iterable[str],
    ) -> None:
        self._form = form
        self._natively = natively
        defined, control = list(defined), list(control)
        self._control = pattern_of(control)
        self._defined = pattern_of(defined)
        self._any = pattern_of([*defined, *control])
        self._memo = TokenMemo()

    def tokenize(self, text: str, *, parse_special: bool, continues: bool) -> list[int]:
        """See :meth:`mofa_gguf.engine.tokens.vocab.Vocab.tokenize`. Raises EngineError."""
        if unicodedata.is_normalized(self._form, text):
            return self._natively(text, parse_special)
        if not parse_special:
            return self._normalized(text, self._defined, parse_special=False)
        tokens: list[int] = []
        for chunk in chunks(text, self._control):
            if unicodedata.is_normalized(self._form, chunk):
                tokens += self._natively(chunk, True)
            else:
                tokens += self._memo.tokens(chunk, self._with_special)
        return tokens

    def _with_special(self, text: str) -> list[int]:
        return self._normalized(text, self._any, parse_special=True)

    def _normalized(
        self, text: str, spelled: re.Pattern[str] | None, *, parse_special: bool
    ) -> list[int]:
        tokens: list[int] = []
        begin = 0
        for found in spelled.finditer(text) if spelled is not None else ():
            tokens += self._between(text[begin : found.start()])
            tokens += self._natively(found[0], parse_special)
            begin = found.end()
        return tokens + self._between(text[begin:])

    def _between(self, text: str) -> list[int]:
        return self._natively(unicodedata.normalize(self._form, text), False) if text else []

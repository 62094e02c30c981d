"""A checkpoint's own tokenizer, kept in the GGUF file and run by the `tokenizers` library.

The converter keeps it (``tokenizer.huggingface.json``, the key of GGUF's specification) where
llama.cpp cannot tokenize as it does. Text stays text here too: a control token comes out only
where its spelling stands in the text and ``parse_special`` asks for it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mofa_gguf.engine.errors import EngineError, ModelFileError
from mofa_gguf.engine.tokens.library_tokenizer import LibraryFailure, library_tokenizer
from mofa_gguf.engine.tokens.spellings import TokenMemo, chunks, pattern_of

KEPT_KEY = "tokenizer.huggingface.json"

_SURROGATES = re.compile("[\ud800-\udfff]")


class KeptTokenizer:
    """Tokenizes as the checkpoint does. Safe to use from several threads.

    ``is_control`` tells which ids the file marks as control tokens, ``natively`` is llama.cpp's
    own tokenization of literal text, for texts that would give a control token away.
    Raises ModelFileError when the library cannot load ``text``.
    """

    def __init__(
        self,
        text: str,
        path: Path,
        *,
        n_tokens: int,
        is_control: Callable[[int], bool],
        natively: Callable[[str], list[int]],
    ) -> None:
        self._path = path
        self._n_tokens = n_tokens
        self._natively = natively
        self._memo = TokenMemo()

        def controls(added: dict[int, Any]) -> dict[int, Any]:
            return {i: t for i, t in added.items() if i < n_tokens and is_control(i)}

        try:
            # Some files mark as control what its tokenizer.json does not call special.
            self._tokenizer = library_tokenizer(
                text, lambda added: {token.content for token in controls(added).values()}
            )
            control = controls(self._tokenizer.added())
            self._control = frozenset(control)
            self._spelled = pattern_of(t.content for t in control.values())
            self._cuts = pattern_of(t.content for t in control.values() if _stands_alone(t))
            newline, behind = self._encode("\n", True), self._encode("\nx", True)
            self._marks_beginnings = behind != newline + self._encode("x", True)
        except LibraryFailure as error:
            raise ModelFileError(
                path, f"the tokenizers library cannot run the tokenizer in {KEPT_KEY} ({error})"
            ) from error

    def tokenize(self, text: str, *, parse_special: bool, continues: bool) -> list[int]:
        """See :meth:`mofa_gguf.engine.tokens.vocab.Vocab.tokenize`. Raises EngineError."""
        text = _without_surrogates(text)
        try:
            if not parse_special:
                return self._behind_a_newline(text, False) if continues else self._literal(text)
            return self._parsed(text, continues)
        except LibraryFailure as error:
            raise EngineError(
                f"the tokenizer in {self._path.name} cannot tokenize {text[:30]!r} ({error})"
            ) from error

    def _parsed(self, text: str, continues: bool) -> list[int]:
        """A prompt is cut before its control tokens; the parts of a conversation come again."""
        tokens: list[int] = []
        for n, chunk in enumerate(chunks(text, self._cuts)):
            if n == 0 and continues:
                tokens += self._behind_a_newline(chunk, True)
            else:
                tokens += self._memo.tokens(chunk, self._with_special)
        return tokens

    def _with_special(self, text: str) -> list[int]:
        tokens = self._encode(text, True)
        n_spelled = 0 if self._spelled is None else sum(1 for _ in self._spelled.finditer(text))
        if self._n_control(tokens) <= n_spelled:
            return tokens
        # Normalization has made a control token of other characters: only spelled ones count.
        tokens, begin = [], 0
        for found in self._spelled.finditer(text) if self._spelled is not None else ():
            tokens += self._literal(text[begin : found.start()])
            tokens += self._encode(found[0], True)
            begin = found.end()
        return tokens + self._literal(text[begin:])

    def _literal(self, text: str) -> list[int]:
        tokens = self._encode(text, False)
        # A vocabulary may hold a control token's text as a piece that plain text can give.
        return self._natively(text) if self._n_control(tokens) else tokens

    def _behind_a_newline(self, text: str, special: bool) -> list[int]:
        """Tokens of a text that goes on: some tokenizers mark where a text begins."""
        encode = self._with_special if special else self._literal
        if not self._marks_beginnings:
            return encode(text)
        before, tokens = self._encode("\n", False), encode("\n" + text)
        return tokens[len(before) :] if tokens[: len(before)] == before else encode(text)

    def _n_control(self, tokens: list[int]) -> int:
        return sum(token in self._control for token in tokens)

    def _encode(self, text: str, special: bool) -> list[int]:
        tokens = self._tokenizer.encode(text, parse_special=special)
        if tokens and max(tokens) >= self._n_tokens:
            raise LibraryFailure(
                f"it gives token {max(tokens)}, and the model has {self._n_tokens}"
            )
        return tokens


def _stands_alone(token: Any) -> bool:
    """Whether what stands before an added token cannot change how it is read."""
    return not (token.lstrip or token.single_word or token.normalized)


def _without_surrogates(text: str) -> str:
    """Half surrogate pairs become U+FFFD: the library takes Unicode text only."""
    return text if text.isascii() else _SURROGATES.sub("\ufffd", text)

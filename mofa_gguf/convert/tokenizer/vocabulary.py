"""The shared words of this package: token types, the token table, one kind's tables, the result."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

from mofa_gguf.convert.errors import TokenizerError
from mofa_gguf.convert.metadata import Metadata

if TYPE_CHECKING:
    from mofa_gguf.convert.tokenizer.agreement import Agreement
    from mofa_gguf.convert.tokenizer.exactness import Kept
    from mofa_gguf.convert.tokenizer.reference import ReferenceTokenizer
    from mofa_gguf.engine.tokens.vocab import Vocab

# No known vocabulary has a tenth of this; a bound keeps a lying id from filling the memory.
MAX_TOKENS = 4_000_000

# Scores as llama.cpp's converter gives them: far below every learned score.
ADDED_TOKEN_SCORE = -1000.0
UNUSED_TOKEN_SCORE = -10000.0


class TokenType(IntEnum):
    """``tokenizer.ggml.token_type`` (enum llama_token_type in llama.h; SentencePiece's numbers)."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


def require_utf8(text: str, what: str) -> None:
    """Raise TokenizerError for half surrogate pairs, which JSON can spell and UTF-8 cannot."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise TokenizerError(
            f"{what} has text that is not Unicode ({text[error.start]!r})"
        ) from error


class TokenTable:
    """Text, score and type of every id below ``n_vocab``.

    llama.cpp aborts the process when two ids have one text, so :meth:`finish` makes texts unique;
    ids that nobody filled become unused placeholders, as the embedding matrix has rows for them.
    """

    def __init__(self, n_vocab: int, *, added: Iterable[int] = ()) -> None:
        """``added`` are the ids of added tokens: those may lie beyond the embedding matrix."""
        if not 0 < n_vocab <= MAX_TOKENS:
            raise TokenizerError(
                f"a vocabulary of {n_vocab} tokens is outside what can be (1 to {MAX_TOKENS})"
            )
        self.n_vocab = n_vocab
        self._texts: list[str | None] = [None] * n_vocab
        self._scores = [UNUSED_TOKEN_SCORE] * n_vocab
        self._types = [int(TokenType.UNUSED)] * n_vocab
        self._added = frozenset(added)
        self._dropped: dict[int, str] = {}
        self.warnings: list[str] = []

    def place(self, token: int, text: str, kind: TokenType, score: float = 0.0) -> None:
        """Give ``token`` its text; a later call for the same id replaces an earlier one.

        Ids beyond the embedding matrix are dropped (see :meth:`finish`).
        """
        if token >= self.n_vocab:
            self._dropped[token] = text
            return
        self._texts[token] = text
        self._types[token] = int(kind)
        self._scores[token] = score

    def place_all(self, entries: Iterable[tuple[int, str]], kind: TokenType) -> None:
        """:meth:`place` for many tokens of one kind, in half the time."""
        n_vocab, texts, types, scores = self.n_vocab, self._texts, self._types, self._scores
        number = int(kind)
        for token, text in entries:
            if token < n_vocab:
                texts[token], types[token], scores[token] = text, number, 0.0
            else:
                self._dropped[token] = text

    def text(self, token: int) -> str | None:
        """Text of ``token`` so far."""
        return self._texts[token] if 0 <= token < self.n_vocab else None

    def type(self, token: int) -> TokenType:
        """Type of ``token`` so far."""
        return TokenType(self._types[token])

    def score(self, token: int) -> float:
        """Score of ``token`` so far."""
        return self._scores[token]

    def finish(self) -> TokenLists:
        """The finished lists; TokenizerError when tokens of the model have no embedding row."""
        lost = [token for token in self._dropped if token not in self._added]
        if lost:
            token, text = lost[0], self._dropped[lost[0]]
            raise TokenizerError(
                f"token {token} ({text!r:.60}) lies beyond the model's {self.n_vocab} embeddings; "
                "the tokenizer and the weights do not belong together"
            )
        if self._dropped:
            names = ", ".join(repr(text) for text in list(self._dropped.values())[:3])
            self.warnings.append(
                f"{len(self._dropped)} added tokens have no embedding in the model and were "
                f"left out ({names})"
            )
        texts = self._unique_texts()
        return TokenLists(texts, list(self._scores), list(self._types))

    def _unique_texts(self) -> list[str]:
        texts = [text for text in self._texts if text]
        joined = "\n".join(texts)
        # Nearly every vocabulary: nothing is missing, empty, there twice, or cut off by llama.cpp.
        if len(set(texts)) != self.n_vocab or "\0" in joined:
            texts = self._told_apart()
            joined = "\n".join(texts)
        require_utf8(joined, "the vocabulary")
        return texts

    def _told_apart(self) -> list[str]:
        seen: set[str] = set()
        texts: list[str] = []
        for token, text in enumerate(self._texts):
            # llama.cpp reads C strings: a NUL ends the text, an empty text is renamed by it.
            visible = f"[PAD{token}]" if text is None else text.split("\0", 1)[0]
            visible = visible or f"[EMPTY_{token}]"
            if visible in seen:
                self._types[token] = int(TokenType.UNUSED)
                if text is not None:
                    self.warnings.append(
                        f"token {token} has the text of an earlier one ({visible!r:.60}) "
                        "and cannot be reached"
                    )
                visible = f"[PAD{token}]"
                while visible in seen:
                    visible += "_"
            seen.add(visible)
            texts.append(visible)
        return texts


class TokenLists(NamedTuple):
    """Parallel lists, indexed by token id, as the GGUF arrays want them."""

    texts: list[str]
    scores: list[float]
    types: list[int]


class KindVocabulary(NamedTuple):
    """What one kind of tokenizer puts into the file, before pre-tokenizer and special tokens.

    ``kind`` is ``bpe``, ``spm``, ``unigram`` or ``wordpiece``; ``model`` is
    ``tokenizer.ggml.model``.
    """

    kind: str
    model: str
    lists: TokenLists
    merges: list[str] | None = None
    with_scores: bool = False
    add_space_prefix: bool | None = None
    remove_extra_whitespaces: bool | None = None
    precompiled_charsmap: bytes = b""
    lowercase: bool | None = None
    strip_accents: bool | None = None
    warnings: tuple[str, ...] = ()

    def metadata(self) -> Metadata:
        """The ``tokenizer.ggml.*`` keys of the tables."""
        data = Metadata()
        data.string("tokenizer.ggml.model", self.model)
        data.strings("tokenizer.ggml.tokens", self.lists.texts)
        if self.with_scores:
            data.float32s("tokenizer.ggml.scores", self.lists.scores)
        data.int32s("tokenizer.ggml.token_type", self.lists.types)
        if self.merges is not None:
            data.strings("tokenizer.ggml.merges", self.merges)
        if self.add_space_prefix is not None:
            data.boolean("tokenizer.ggml.add_space_prefix", self.add_space_prefix)
        if self.remove_extra_whitespaces is not None:
            data.boolean("tokenizer.ggml.remove_extra_whitespaces", self.remove_extra_whitespaces)
        if self.precompiled_charsmap:
            data.uint8s("tokenizer.ggml.precompiled_charsmap", self.precompiled_charsmap)
        if self.lowercase is not None:
            data.boolean("tokenizer.ggml.normalizer.lowercase", self.lowercase)
        if self.strip_accents is not None:
            data.boolean("tokenizer.ggml.normalizer.strip_accents", self.strip_accents)
        return data


@dataclass(frozen=True)
class Vocabulary:
    """A checkpoint's vocabulary, ready for a GGUF file.

    ``kind`` is ``bpe``, ``spm``, ``unigram`` or ``wordpiece``; ``pre_tokenizer`` is llama.cpp's
    name of the chosen pre-tokenizer ("default" for kinds that have none); ``agreement`` says how
    llama.cpp alone, given these keys, agreed with ``reference`` on the battery; ``kept`` is what
    the file holds so that this package agrees everywhere; ``warnings`` are whole sentences for the
    report. Where there is no ``agreement`` yet, ``judge_on`` measures it on the vocabulary that
    llama.cpp reads from the file; it returns the warnings with it, or raises TokenizerMismatch.
    """

    kind: str
    pre_tokenizer: str
    n_tokens: int
    reference: ReferenceTokenizer
    agreement: Agreement | None
    judge_on: Callable[[Vocab], tuple[Agreement, list[str]]] | None
    kept: Kept
    warnings: tuple[str, ...]
    _metadata: Metadata = field(repr=False)

    def metadata(self) -> Metadata:
        """Every ``tokenizer.*`` and ``general.sampling.*`` key of the file, in a fresh object."""
        copy = Metadata()
        copy.update(self._metadata)
        return copy

"""How far llama.cpp, given a vocabulary file, tokenizes as the checkpoint's own tokenizer does.

Three outcomes for a text: the same ids; the same ids once the text is in the Unicode form that the
tokenizer brings it into itself (llama.cpp does not normalize); different ids. Some differences lie
in llama.cpp and in nothing that a file could say; those are named in :data:`LIMITS` and do not
count against the vocabulary, but they are reported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from mofa_gguf.convert.errors import TokenizerError
from mofa_gguf.convert.tokenizer.battery import BatteryText
from mofa_gguf.convert.tokenizer.reference import ReferenceTokenizer

_N_SHOWN = 5
_N_IN_ERROR = 3

_CASE_CLASSES = "llama.cpp's version of this pre-tokenizer leaves combining marks out of words"

# Kind or pre-tokenizer -> tag of a battery text -> what llama.cpp does differently there
# (src/llama-vocab.cpp, src/unicode.cpp).
LIMITS: dict[str, dict[str, str]] = {
    "wordpiece": {
        "hangul": "llama.cpp's WordPiece keeps only the first part of a decomposed character",
        "marks": "llama.cpp's WordPiece drops every combining mark, BERT only non-spacing ones",
    },
    "spm": {
        "leading-space": "llama.cpp prefixes a space even where a text begins with one",
    },
    "tekken": {"marks": _CASE_CLASSES},
    "gpt-4o": {"marks": _CASE_CLASSES},
}


def limit(item: BatteryText, *names: str) -> str | None:
    """Why a kind or pre-tokenizer of these names may differ on this text; None when it may not."""
    for name in names:
        for tag, reason in LIMITS.get(name, {}).items():
            if tag in item.tags:
                return reason
    return None


class Difference(NamedTuple):
    """One text on which the two tokenizers differ, from its first differing token on.

    ``cause`` says why when that is known ("Unicode normalization", a limit of llama.cpp), and is
    None when it is not.
    """

    name: str
    text: str
    expected: tuple[int, ...]
    actual: tuple[int, ...]
    cause: str | None = None
    spellings: Mapping[int, str] = MappingProxyType({})
    """The entries of differing tokens in the vocabulary, by id."""

    def __str__(self) -> str:
        at = next(
            (i for i, (a, b) in enumerate(zip(self.expected, self.actual, strict=False)) if a != b),
            min(len(self.expected), len(self.actual)),
        )
        window = slice(at, at + 4)
        return (
            f"{self.name} {self.text[:40]!r}: from token {at} the tokenizer gives "
            f"{self._shown(self.expected[window])}, llama.cpp {self._shown(self.actual[window])}"
        )

    def _shown(self, tokens: tuple[int, ...]) -> str:
        if not tokens:
            return "nothing"
        return " ".join(f"{self.spellings.get(t, '')!r:.24} ({t})" for t in tokens)


class TokenizerMismatch(TokenizerError):
    """llama.cpp cannot be brought to tokenize as the checkpoint does.

    ``pre_tokenizer`` is the nearest one, ``agreement`` how it agreed.
    """

    def __init__(self, folder: Path, pre_tokenizer: str, agreement: Agreement) -> None:
        differences = "; ".join(map(str, agreement.first_differences[:_N_IN_ERROR]))
        super().__init__(
            f"{folder}: llama.cpp cannot tokenize as this tokenizer does; nearest is its "
            f"pre-tokenizer {pre_tokenizer!r}: {agreement.summary()} ({differences}); "
            "allow a tokenizer mismatch (--allow-tokenizer-mismatch) to convert all the same: "
            "the file then keeps the tokenizer for this package, and other programs differ"
        )
        self.pre_tokenizer = pre_tokenizer
        self.agreement = agreement


class Agreement(NamedTuple):
    """Result of a comparison over ``n_texts`` texts.

    ``n_agree`` gave the same ids as they are; ``n_normalized`` did after Unicode normalization;
    ``n_limited`` differ for a known reason that lies in llama.cpp; the rest is unexplained.
    ``first_differences`` holds a few, unexplained ones first.
    """

    n_texts: int
    n_agree: int
    n_normalized: int
    n_limited: int
    first_differences: tuple[Difference, ...]

    @property
    def n_unexplained(self) -> int:
        """Texts that differ for no known reason."""
        return self.n_texts - self.n_agree - self.n_normalized - self.n_limited

    @property
    def complete(self) -> bool:
        """Whether every text gave the same ids as it is."""
        return self.n_agree == self.n_texts

    @property
    def acceptable(self) -> bool:
        """Whether every difference is explained."""
        return self.n_unexplained == 0

    def summary(self) -> str:
        """One line for a report."""
        parts = [f"{self.n_agree} of {self.n_texts} texts agree token for token"]
        if self.n_normalized:
            parts.append(f"{self.n_normalized} more after Unicode normalization")
        if self.n_limited:
            parts.append(f"{self.n_limited} differ where llama.cpp cannot do otherwise")
        if self.n_unexplained:
            parts.append(f"{self.n_unexplained} differ")
        return ", ".join(parts)


def compare(
    tokenize: Callable[[str], list[int]],
    reference: ReferenceTokenizer,
    texts: Iterable[BatteryText],
    *,
    kind: str,
    pre_tokenizer: str,
    spelling: Callable[[int], str],
) -> Agreement:
    """Tokenize every text both ways.

    ``tokenize`` is llama.cpp's, or what the file makes of it; ``spelling`` gives a token's text.
    """
    n_texts = n_agree = n_normalized = n_limited = 0
    explained: list[Difference] = []
    unexplained: list[Difference] = []
    for item in texts:
        n_texts += 1
        expected = reference.encode(item.text)
        actual = tokenize(item.text)
        if actual == expected:
            n_agree += 1
            continue
        cause = None
        normalized = reference.normalize(item.text)
        if normalized != item.text and tokenize(normalized) == expected:
            n_normalized += 1
            cause = "Unicode normalization"
        elif cause := limit(item, kind, pre_tokenizer):
            n_limited += 1
        spellings = {token: spelling(token) for token in {*expected, *actual}}
        difference = Difference(
            item.name, item.text, tuple(expected), tuple(actual), cause, spellings
        )
        (explained if cause else unexplained).append(difference)
    shown = tuple(islice((*unexplained, *explained), _N_SHOWN))
    return Agreement(n_texts, n_agree, n_normalized, n_limited, shown)

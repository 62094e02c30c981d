"""Prompt lookup: what followed, earlier in a text, on the tokens that it ends with now.

Answers that quote their prompt, or repeat themselves, can be guessed from their own past; a guess
costs a search over a few kilobytes. The idea is that of prompt-lookup decoding (Saxena, 2023,
https://github.com/apoorvumang/prompt-lookup-decoding). Knows nothing of llama.cpp.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass

MIN_MATCH = 3
"""Shorter agreements say too little about what follows."""
MAX_MATCH = 32
"""Longer ones are as good as this one."""
LOOK_BACK = 2**15
"""Tokens that are searched; more would take as long as computing a token."""
_N_CANDIDATES = 16
_WIDTH = 4


@dataclass(frozen=True)
class Match:
    """An earlier place: ``at`` is the position behind it, ``length`` how many tokens agree."""

    at: int
    length: int


class Lookup:
    """The tokens of one text, searchable. They only ever grow."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._n_tokens = 0

    def extend(self, tokens: Sequence[int]) -> None:
        """Take in what ``tokens``, the whole text, has beyond what is known."""
        self._data += array("i", tokens[self._n_tokens :]).tobytes()
        self._n_tokens = len(tokens)

    def find(self, tokens: Sequence[int]) -> Match | None:
        """The longest of the latest places that agree with the end of ``tokens``, the whole text.

        Of equally long ones the latest, for what was said last is what goes on.
        """
        n_tokens = self._n_tokens
        if n_tokens <= MIN_MATCH:
            return None
        pattern = bytes(self._data[-MIN_MATCH * _WIDTH :])
        first = max(0, n_tokens - LOOK_BACK) * _WIDTH
        end, best = (n_tokens - 1) * _WIDTH, None
        for _ in range(_N_CANDIDATES):
            found = self._rfind(pattern, first, end)
            if found is None:
                break
            at = found + MIN_MATCH
            length = _agreement(tokens, at)
            if best is None or length > best.length:
                best = Match(at, length)
            if length == MAX_MATCH:
                break
            end = (at - 1) * _WIDTH
        return best

    def _rfind(self, pattern: bytes, first: int, end: int) -> int | None:
        """The last token position between two bytes where the pattern stands."""
        while (found := self._data.rfind(pattern, first, end)) >= 0:
            if found % _WIDTH == 0:
                return found // _WIDTH
            end = found + len(pattern) - 1
        return None


def _agreement(tokens: Sequence[int], at: int) -> int:
    """How many tokens before ``at`` are those that the text ends with."""
    n = MIN_MATCH
    while n < min(MAX_MATCH, at) and tokens[at - n - 1] == tokens[-n - 1]:
        n += 1
    return n


def continuation(tokens: Sequence[int], match: Match, n: int) -> list[int]:
    """``n`` tokens as they followed at the earlier place; a period goes on for ever."""
    period = len(tokens) - match.at
    return [tokens[match.at + i % period] for i in range(n)]

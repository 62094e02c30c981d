"""Whether guessing tokens ahead pays: plain functions and estimates, without a model.

A decode of several tokens of one sequence costs little more than a decode of one, as long as
reading the weights is what takes the time. Tokens that were guessed right are then nearly free;
wrong ones cost their share of the wider step. How wide a step may be is decided from two things
that are measured all the time: how often guesses turn out right, and what a step of each width
takes. (Speculative decoding: Leviathan et al., ICML 2023, https://arxiv.org/abs/2211.17192.)
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from mofa_gguf.engine.speculation.hit_rate import HitRate
from mofa_gguf.engine.speculation.limits import MAX_DRAFT
from mofa_gguf.engine.speculation.lookup import Lookup, Match, continuation

MIN_CHANCE = 0.05
"""Less probable guesses are not considered."""
MARGIN = 1.05
"""How much faster a wider step must promise to be."""

_MATCH_LENGTHS = (4, 8, 16)
_PRIOR = (0.4, 0.6, 0.8, 0.9)
_PRIOR_WEIGHT = 2.0
_MEMORY = 0.95
_WIDTHS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 128, 256, 512)
_COST_MEMORY = 0.7
_WORST_JUMP = 2.0
_FORGET_AFTER = 512
_FIXED_SHARE = 8.0
"""Before anything wider was measured: a step costs as much as this many tokens, and its own."""


class Acceptance:
    """How often guesses of one sequence are right, by the length of the agreement before them."""

    def __init__(self) -> None:
        self._rates = [HitRate(each, weight=_PRIOR_WEIGHT, memory=_MEMORY) for each in _PRIOR]

    def note(self, match_length: int, *, right: bool) -> None:
        """A guess that followed an agreement of ``match_length`` tokens was right or wrong."""
        self._rates[bisect_left(_MATCH_LENGTHS, match_length)].note(right=right)

    def chance(self, match_length: int) -> float:
        """How probable it is that the next guess is right, 0 to 1."""
        return self._rates[bisect_left(_MATCH_LENGTHS, match_length)].chance

    def chances(self, match_length: int, n: int) -> Iterator[float]:
        """For each of ``n`` guesses in a row: how probable it is that all up to it are right.

        Ends where that is not worth a thought.
        """
        product = 1.0
        for i in range(n):
            product *= self.chance(match_length + i)
            if product < MIN_CHANCE:
                return
            yield product


class StepCost:
    """What a step takes, by the number of tokens in it. What is long past is forgotten."""

    def __init__(self) -> None:
        self._points: dict[int, _Point] = {}
        self._ordered: list[_Point] = []
        self._clock = 0
        self._look_at = 0

    def note(self, n_tokens: int, seconds: float) -> None:
        """A step of ``n_tokens`` took ``seconds``."""
        self._clock += 1
        width = bisect_left(_WIDTHS, n_tokens)
        before = self._points.get(width)
        if before is not None and self._clock - before.noted <= _FORGET_AFTER:
            keep, seconds = _COST_MEMORY, min(seconds, _WORST_JUMP * before.seconds)
            before.n_tokens = keep * before.n_tokens + (1 - keep) * n_tokens
            before.seconds = keep * before.seconds + (1 - keep) * seconds
            before.noted = self._clock
            if self._clock < self._look_at:
                return
        else:
            self._points[width] = _Point(float(n_tokens), seconds, self._clock)
        for old in [w for w, p in self._points.items() if self._clock - p.noted > _FORGET_AFTER]:
            del self._points[old]
        # None is out of date before then.
        self._look_at = min(p.noted for p in self._points.values()) + _FORGET_AFTER + 1
        self._ordered = [self._points[width] for width in sorted(self._points)]

    def seconds(self, n_tokens: int) -> float | None:
        """What a step of ``n_tokens`` would take; None before any was measured.

        Between measured widths it is a straight line.
        """
        points = self._ordered
        if not points:
            return None
        above = next((i for i, point in enumerate(points) if point.n_tokens >= n_tokens), None)
        if above is None or above == 0:
            nearest = points[-1 if above is None else 0]
            share = (_FIXED_SHARE + n_tokens) / (_FIXED_SHARE + nearest.n_tokens)
            return nearest.seconds * share
        left, right = points[above - 1], points[above]
        way = (n_tokens - left.n_tokens) / (right.n_tokens - left.n_tokens)
        return left.seconds + way * (right.seconds - left.seconds)


@dataclass
class _Point:
    n_tokens: float
    seconds: float
    noted: int


def share(
    chances: Sequence[Sequence[float]],
    *,
    n_decoding: int,
    budget: int,
    seconds: Callable[[int], float | None],
) -> list[int]:
    """How many guesses of each sequence the next step takes.

    ``chances[i]``: for each guess of sequence i, how probable it is that it and those before it
    are right. ``n_decoding`` tokens are computed anyhow, ``budget`` more may be. The likeliest
    guesses go first, and as many as promise the most tokens per second: with many sequences in a
    step, each is worth less beside what all of them get.
    """
    counts = [0] * len(chances)
    alone = seconds(n_decoding) if any(chances) else None
    if alone is None or alone <= 0:
        return counts
    ranked = sorted(
        ((chance, i) for i, own in enumerate(chances) for chance in own), key=lambda c: -c[0]
    )[:budget]
    best, n_best, expected = n_decoding / alone * MARGIN, 0, float(n_decoding)
    for n, (chance, _) in enumerate(ranked, start=1):
        expected += chance
        took = seconds(n_decoding + n)
        if took and expected / took > best:
            best, n_best = expected / took, n
    for _, i in ranked[:n_best]:
        counts[i] += 1
    return counts


@dataclass(frozen=True)
class Guess:
    """Tokens that may come next; ``chances`` as :func:`share` takes them."""

    tokens: Sequence[int] = ()
    chances: Sequence[float] = ()


NO_GUESS = Guess()


class Guesser:
    """Guesses one sequence's next tokens and learns how good it is at that.

    It learns from every guess, also from those that nobody made use of: whether guessing pays is
    known without paying for it.
    """

    def __init__(self) -> None:
        self.acceptance = Acceptance()
        self._lookup = Lookup()
        self._match: Match | None = None
        self._guessed: Sequence[int] = ()
        self._n_tokens = 0

    def guess(self, tokens: Sequence[int], n_max: int) -> Guess:
        """Up to ``n_max`` tokens behind ``tokens``, which is what it was last time, and more."""
        self._learn(tokens)
        self._lookup.extend(tokens)
        self._match, self._n_tokens = self._lookup.find(tokens), len(tokens)
        n = min(n_max, MAX_DRAFT)
        if self._match is None or n < 1:
            self._guessed = ()
            return NO_GUESS
        self._guessed = continuation(tokens, self._match, n)
        return Guess(self._guessed, tuple(self.acceptance.chances(self._match.length, n)))

    def _learn(self, tokens: Sequence[int]) -> None:
        if self._match is None:
            return
        came = tokens[self._n_tokens : self._n_tokens + len(self._guessed)]
        for i, (guessed, token) in enumerate(zip(self._guessed, came, strict=False)):
            self.acceptance.note(self._match.length + i, right=guessed == token)
            if guessed != token:
                return

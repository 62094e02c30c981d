"""Whether a draft model pays: plain functions and estimates, without a model.

A draft model guesses one token after the other, and each guess takes a decode of it. That pays
where its decodes are cheap beside the target's and its guesses mostly right; both are measured.
A model that is not known to pay is tried all the same now and then, out of a small share of the
time that the target's own steps take, so that trying costs next to nothing.
(Speculative sampling: Leviathan et al., ICML 2023, https://arxiv.org/abs/2211.17192.)
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mofa_gguf.engine.speculation.hit_rate import HitRate
from mofa_gguf.engine.speculation.policy import MARGIN

MAX_DEPTH = 8
"""Most tokens that are drafted for one sequence."""
_TRIAL_DEPTH = 4
NEAR = 32
"""A sequence whose draft lacks more tokens than this must catch up before anything is drafted."""
TRIAL_SHARE = 0.01
"""Of the time of the target's own steps, what trials may take."""
TRIAL_START_S = 2.0
"""What they may take at first: whoever names a draft model expects something of it."""
N_TRUSTED = 16
"""Guesses after which the measured acceptance is believed."""
CATCH_UP_S = 0.1
"""How long catching up may hold up running streams in one step, about."""

_PROMISING = 0.5
_FIRST_CHUNK = 64
_MIN_CHUNK = 32
_MIN_CHANCE = 0.15
_MIN_REST = 64
_LEVELS = (0.3, 0.6, 0.9)
_PRIOR = (0.3, 0.5, 0.7, 0.9)
_PRIOR_WEIGHT = 2.0
_MEAN_PRIOR, _MEAN_WEIGHT = 0.6, 4.0
_MEMORY = 0.98

Seconds = Callable[[int], "float | None"]
"""What a step of so many tokens takes; None before any was measured."""


class DraftAcceptance:
    """How often a draft model's guesses are right, all together and by how sure it was of them."""

    def __init__(self) -> None:
        self.n_noted = 0
        self._rates = [HitRate(each, weight=_PRIOR_WEIGHT, memory=_MEMORY) for each in _PRIOR]
        self._mean = HitRate(_MEAN_PRIOR, weight=_MEAN_WEIGHT, memory=_MEMORY)

    def note(self, confidence: float, *, right: bool) -> None:
        """A guess that the draft model gave this probability was right or wrong."""
        self.n_noted += 1
        self._rates[bisect_left(_LEVELS, confidence)].note(right=right)
        self._mean.note(right=right)

    def chance(self, confidence: float) -> float:
        """How probable it is that a guess of this confidence is right, 0 to 1."""
        return self._rates[bisect_left(_LEVELS, confidence)].chance

    @property
    def mean(self) -> float:
        """How probable it is that a guess is right of which nothing is known yet."""
        return self._mean.chance

    @property
    def trusted(self) -> bool:
        """Whether enough guesses were seen to go by them."""
        return self.n_noted >= N_TRUSTED


def trial_depth(mean: float) -> int:
    """Tokens to draft where it is only to be seen how good they are; one where that is known."""
    return _TRIAL_DEPTH if mean >= _PROMISING else 1


@dataclass(frozen=True)
class Depth:
    """How many tokens to draft for each sequence; 0 where it does not pay."""

    n_tokens: int = 0
    saved_s: float = 0.0
    """What that is expected to save of the time of a token."""


def best_depth(
    chance: float,
    *,
    n_decoding: int,
    n_drafting: int,
    n_max: int,
    seconds: Seconds,
    draft_seconds: Seconds,
) -> Depth:
    """How far to draft for ``n_drafting`` of ``n_decoding`` sequences.

    As far as promises the most tokens per second, if guesses are right with ``chance`` each: the
    draft model computes one token of each sequence after the other, the target all of them at
    once. 0 tokens where the target alone is as fast, or costs are not known.
    """
    alone, each = seconds(n_decoding), draft_seconds(n_drafting)
    if not alone or each is None or n_drafting < 1:
        return Depth()
    plain_rate = n_decoding / alone
    best, best_rate = Depth(), plain_rate * MARGIN
    expected, product = float(n_decoding), 1.0
    for n in range(1, n_max + 1):
        product *= chance
        expected += n_drafting * product
        took = (seconds(n_decoding + n * n_drafting) or alone) + n * each
        if expected / took > best_rate:
            best_rate = expected / took
            best = Depth(n, n_decoding * (1 / plain_rate - 1 / best_rate))
    return best


def going_on(
    chances: Sequence[float], mean: float, *, token_s: float, draft_seconds: Seconds
) -> list[int]:
    """For which sequences one more token is worth drafting; indices into ``chances``.

    ``chances``: how probable it is that all their tokens drafted so far are right; ``token_s``:
    what a token takes without drafts.
    """
    likely = [i for i, chance in enumerate(chances) if chance >= _MIN_CHANCE]
    cost = draft_seconds(len(likely))
    gained = sum(chances[i] for i in likely) * mean * token_s
    return likely if cost is not None and gained > cost else []


def worth_catching_up(
    n_behind: int, *, n_generated: int, n_most: int, saved_s: float, tokens_per_s: float | None
) -> bool:
    """Whether a draft's missing ``n_behind`` tokens pay for themselves within the answer.

    It is taken to become as long again as it is already, but not longer than ``n_most`` more
    tokens; ``saved_s`` is what drafting saves of a token's time.
    """
    if tokens_per_s is None:
        return saved_s > 0
    rest = min(n_most, max(_MIN_REST, n_generated))
    return rest * saved_s > n_behind / tokens_per_s


def chunk_size(tokens_per_s: float | None, n_batch: int) -> int:
    """Tokens that a draft catches up with in one step, beside running streams."""
    if tokens_per_s is None:
        return min(n_batch, _FIRST_CHUNK)
    return min(n_batch, max(_MIN_CHUNK, int(tokens_per_s * CATCH_UP_S)))


class TrialAccount:
    """Time that may be spent on seeing whether drafting pays."""

    def __init__(self) -> None:
        self.balance_s = TRIAL_START_S
        self._is_first = True

    def earn(self, step_s: float) -> None:
        """The target's own step took so long."""
        self.balance_s = min(TRIAL_START_S, self.balance_s + TRIAL_SHARE * step_s)

    def spend(self, seconds: float) -> None:
        """A trial took so long."""
        self.balance_s -= seconds

    def close_first(self) -> None:
        """It was seen that drafting does not pay: what was given at first is taken back."""
        if self._is_first:
            self._is_first = False
            self.balance_s = min(0.0, self.balance_s)

    def covers(self, seconds: float) -> bool:
        """Whether a trial that takes so long may be made."""
        return self.balance_s > 0 and self.balance_s >= seconds

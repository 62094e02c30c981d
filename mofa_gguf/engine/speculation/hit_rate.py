"""How often guesses come true, where the latest ones count most."""

from __future__ import annotations


class HitRate:
    """The share of guesses that were right: ``prior`` before any was seen.

    ``weight``: how many guesses the prior counts for; ``memory``: what each guess leaves of the
    weight of those before it, so that the rate follows a text that changes.
    """

    def __init__(self, prior: float, *, weight: float, memory: float) -> None:
        self._prior = prior
        self._weight = weight
        self._memory = memory
        self._right = 0.0
        self._all = 0.0

    def note(self, *, right: bool) -> None:
        """A guess was right or wrong."""
        self._right = self._memory * self._right + right
        self._all = self._memory * self._all + 1

    @property
    def chance(self) -> float:
        """How probable it is that the next guess is right, 0 to 1."""
        return (self._right + self._prior * self._weight) / (self._all + self._weight)

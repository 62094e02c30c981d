"""Penalties for what was said before, as llama.cpp computes them, on logits in place.

Repetition over prompt and answer; frequency and presence over the answer alone, as in the OpenAI
API. llama.cpp's own sampler looks every token of the vocabulary up (src/llama-sampler.cpp,
``llama_sampler_penalties_apply``), here those that were said are looked up.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

_MOST = 1e30
"""A greater one is no number any more beside a logit."""


class Penalties:
    """What one request has said, and what that costs. ``last_n``: tokens that ``repeat`` counts."""

    def __init__(
        self,
        *,
        repeat: float,
        last_n: int,
        frequency: float,
        presence: float,
        prompt: Sequence[int],
    ) -> None:
        self._repeat = min(repeat, _MOST)
        self._frequency = frequency
        self._presence = presence
        counts = repeat != 1.0 and last_n > 0
        self._recent = deque(prompt[-last_n:] if counts else (), maxlen=last_n if counts else 0)
        self._n_recent = Counter(self._recent)
        self._n_said: Counter[int] = Counter()

    def accept(self, token: int) -> None:
        """Take a token of the answer into the account."""
        self._n_said[token] += 1
        if not self._recent.maxlen:
            return
        if len(self._recent) == self._recent.maxlen:
            oldest = self._recent[0]
            self._n_recent[oldest] -= 1
            if not self._n_recent[oldest]:
                del self._n_recent[oldest]
        self._recent.append(token)
        self._n_recent[token] += 1

    def apply(self, logits: npt.NDArray[np.float32]) -> None:
        """Lower the logits of what was said, in place."""
        if self._n_recent:
            tokens = np.fromiter(self._n_recent, np.intp)
            some = logits[tokens]
            logits[tokens] = np.where(some > 0, some / self._repeat, some * self._repeat)
        if self._n_said and (self._frequency or self._presence):
            tokens = np.fromiter(self._n_said, np.intp)
            counts = np.fromiter(self._n_said.values(), np.float32)
            logits[tokens] -= counts * self._frequency + self._presence

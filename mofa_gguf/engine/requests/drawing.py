"""The usual draw without llama.cpp's chain: temperature, top-p and min-p over a whole vocabulary.

The chain begins with a list of all tokens and sorts it for top-p: 9 ms a token for a vocabulary of
151,936, 1.2 ms where nothing is cut off. Here only the tokens that are left are ever sorted. Cut
is what llama.cpp cuts, in its order (src/llama-sampler.cpp): top-p, then min-p, then temperature.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mofa_gguf.engine.errors import EngineError

FloatArray = npt.NDArray[np.float32]

_LIKELY = (1e-3, 1e-5)
"""How probable tokens are, beside the likeliest, among which top-p's are looked for first."""
_STEPS, _N_STEPS = 8, 1024
"""How finely logits are told apart before they are sorted: by eighths, down to 128 below."""
_BLOCK = 512


@dataclass(frozen=True)
class Draw:
    """What is cut off before a token is drawn; ``temperature`` is above 0."""

    temperature: float
    top_p: float = 1.0
    min_p: float = 0.0
    min_keep: int = 1

    @property
    def cuts(self) -> bool:
        """Whether anything is cut off."""
        return self.top_p < 1 or self.min_p > 0

    def choose(self, logits: FloatArray, at: float) -> int:
        """The token that stands at ``at``, 0 to 1, of all probabilities. Writes over ``logits``.

        Raises EngineError where they are no numbers.
        """
        if not self.cuts:
            return self._of_all(logits, at)
        tokens, shares = self.kept(logits)
        return int(tokens[_index(np.cumsum(shares), at)])

    def kept(self, logits: FloatArray) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float64]]:
        """The tokens that are not cut off, and what they are drawn by. Writes over ``logits``."""
        depths = np.subtract(logits, _highest(logits), out=logits)
        least = math.log(self.min_p) if self.min_p > 0 else -math.inf
        if self.top_p < 1:
            tokens, depths = _nucleus(depths, self.top_p)
            likely = depths >= least
            tokens, depths = tokens[likely], depths[likely]
        else:
            tokens = np.flatnonzero(depths >= least)
            depths = depths[tokens]
        if len(tokens) < self.min_keep:
            tokens = np.argsort(-logits, kind="stable")[: self.min_keep]
            depths = logits[tokens]
        return tokens, np.exp(depths.astype(np.float64) / self.temperature)

    def _of_all(self, logits: FloatArray, at: float) -> int:
        """A token of all, by its block first: a sum over everything takes longer."""
        np.subtract(logits, _highest(logits), out=logits)
        if self.temperature != 1:
            np.divide(logits, self.temperature, out=logits)
        np.exp(logits, out=logits)
        sums = np.add.reduceat(logits, np.arange(0, len(logits), _BLOCK), dtype=np.float64)
        bounds = np.cumsum(sums)
        block = _index(bounds, at)
        first, before = block * _BLOCK, bounds[block - 1] if block else 0.0
        within = np.cumsum(logits[first : first + _BLOCK], dtype=np.float64)
        return first + _index(within, (at * bounds[-1] - before) / within[-1])


def _nucleus(depths: FloatArray, top_p: float) -> tuple[npt.NDArray[np.intp], FloatArray]:
    """The fewest tokens that have ``top_p`` of all probability, and how deep each lies.

    ``depths``: logits below the highest. Tokens are counted out by how deep they lie, in steps;
    only those of the step in which the sum is reached are sorted.
    """
    shares = np.exp(depths)
    wanted = top_p * float(shares.sum(dtype=np.float64))
    for least in (*_LIKELY, -1.0):
        tokens = np.flatnonzero(shares > least)
        some = shares[tokens].astype(np.float64)
        if some.sum() >= wanted:
            break
    depths = depths[tokens]
    steps = np.minimum(depths * -_STEPS, _N_STEPS - 1).astype(np.intp)
    sums = np.cumsum(np.bincount(steps, some))
    last = int(np.searchsorted(sums, wanted, "left"))
    inside = np.flatnonzero(steps == last)
    inside = inside[np.argsort(-some[inside], kind="stable")]
    before = sums[last - 1] if last else 0.0
    n_inside = int(np.searchsorted(before + np.cumsum(some[inside]), wanted, "left")) + 1
    kept = np.concatenate([np.flatnonzero(steps < last), inside[:n_inside]])
    return tokens[kept], depths[kept]


def _index(bounds: npt.NDArray[np.float64], at: float) -> int:
    """Between which of rising ``bounds`` the point ``at``, 0 to 1, of the way to the last lies.

    Never where two are equal, however the point was rounded.
    """
    found = np.searchsorted(bounds, at * bounds[-1], "right")
    return int(min(found, np.searchsorted(bounds, bounds[-1], "left")))


def most_likely(logits: FloatArray) -> int:
    """The token with the highest logit. Raises EngineError where they are no numbers."""
    token = int(logits.argmax())
    _check(logits[token])
    return token


def _highest(logits: FloatArray) -> np.float32:
    highest: np.float32 = logits.max()
    _check(highest)
    return highest


def _check(highest: np.float32) -> None:
    if not math.isfinite(highest):  # one that is no number counts as the highest
        raise EngineError(
            f"the model computed no probabilities (a logit is {highest}); "
            "try another file of the model, or a KV cache of another type"
        )


class Drawer:
    """Draws one request's tokens, the same ones again for the same ``seed``."""

    def __init__(self, draw: Draw, *, seed: int) -> None:
        self._draw = draw
        self._random = random.Random(seed)

    def __call__(self, logits: FloatArray) -> int:
        """Draw a token; writes over ``logits``."""
        return self._draw.choose(logits, self._random.random())

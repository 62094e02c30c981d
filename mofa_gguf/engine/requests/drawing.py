"""The usual draw without llama.cpp's chain: temperature, top-k, top-p and min-p.

The chain begins with a list of all tokens and sorts it for top-p: 9 ms a token for a vocabulary of
151,936, 1.2 ms where nothing is cut off. Here only the tokens that are left are ever sorted. Cut
is what llama.cpp cuts, in its order (src/llama-sampler.cpp): top-k, top-p, min-p; temperature last.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mofa_gguf.engine.errors import EngineError

FloatArray = npt.NDArray[np.float32]
Indices = npt.NDArray[np.intp]

_DEPTHS = (-4.0, -8.0, -12.0, -20.0, -math.inf)
"""How deep below the likeliest token those lie among which others are looked for, one by one."""
_FEW = 4096
_STEPS, _N_STEPS = 8, 1024
"""How finely logits are told apart before they are sorted: by eighths, down to 128 below."""
_BLOCK = 512


@dataclass(frozen=True)
class Draw:
    """What is cut off before a token is drawn; ``temperature`` is above 0."""

    temperature: float
    top_k: int = 0
    """0 keeps all."""
    top_p: float = 1.0
    min_p: float = 0.0
    min_keep: int = 1

    @property
    def cuts(self) -> bool:
        """Whether anything is cut off."""
        return self.top_k > 0 or self.top_p < 1 or self.min_p > 0

    def choose(self, logits: FloatArray, at: float) -> int:
        """The token that stands at ``at``, 0 to 1, of all probabilities. Writes over ``logits``.

        Raises EngineError where they are no numbers.
        """
        if not self.cuts:
            return self._of_all(logits, at)
        tokens, shares = self.kept(logits)
        return int(tokens[_index(np.cumsum(shares), at)])

    def kept(self, logits: FloatArray) -> tuple[Indices, npt.NDArray[np.float64]]:
        """The tokens that are not cut off, and what they are drawn by. Writes over ``logits``."""
        depths = np.subtract(logits, _highest(logits), out=logits)
        top = _highest_of(depths, self.top_k) if 0 < self.top_k < len(depths) else None
        if top is not None:
            depths = depths[top]
        least = math.log(self.min_p) if self.min_p > 0 else -math.inf
        if self.top_p < 1:
            left = _nucleus(depths, self.top_p)
            left = left[depths[left] >= least]
        else:
            left = np.flatnonzero(depths >= least)
        if len(left) < self.min_keep:
            left = np.argsort(-depths, kind="stable")[: self.min_keep]
        shares = np.exp(depths[left].astype(np.float64) / self.temperature)
        return left if top is None else top[left], shares

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


def _highest_of(depths: FloatArray, n: int) -> Indices:
    """The ``n`` highest logits. ``depths``: logits below the highest of all."""
    for least in _DEPTHS:
        if np.count_nonzero(depths >= least) >= n:
            break
    some = np.flatnonzero(depths >= least)
    if len(some) > _FEW:
        some = some[np.argpartition(-depths[some], n - 1)[:n]]
    order = np.argsort(-depths[some], kind="stable")
    highest: Indices = some[order[:n]]
    return highest


def _nucleus(depths: FloatArray, top_p: float) -> Indices:
    """The fewest tokens that have ``top_p`` of all probability.

    Tokens are counted out by how deep they lie, in steps; only those of the step in which the sum
    is reached are sorted.
    """
    shares = np.exp(depths)
    wanted = top_p * float(shares.sum(dtype=np.float64))
    for least in _DEPTHS[1:]:
        tokens = np.flatnonzero(depths >= least)
        some = shares[tokens].astype(np.float64)
        if some.sum() >= wanted:
            break
    steps = np.minimum(depths[tokens] * -_STEPS, _N_STEPS - 1).astype(np.intp)
    sums = np.cumsum(np.bincount(steps, some))
    last = int(np.searchsorted(sums, wanted, "left"))
    inside = np.flatnonzero(steps == last)
    inside = inside[np.argsort(-some[inside], kind="stable")]
    before = sums[last - 1] if last else 0.0
    n_inside = int(np.searchsorted(before + np.cumsum(some[inside]), wanted, "left")) + 1
    kept: Indices = tokens[np.concatenate([np.flatnonzero(steps < last), inside[:n_inside]])]
    return kept


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

"""A step's tokens on their way through the context, and how fast that goes."""

from __future__ import annotations

import time
from collections.abc import Sequence

from mofa_gguf.engine.cache.radix import PrefixCache
from mofa_gguf.engine.models.context import Context
from mofa_gguf.engine.running.filling import Filling
from mofa_gguf.engine.scheduling.scheduler import Piece

_SPEED_MEMORY = 0.7
"""How much of the measured prefill speed stays with each new measurement."""
_MIN_MEASURED = 32


class BatchRunner:
    """Computes pieces. Raises DecodeFailed where llama.cpp cannot.

    ``filling``: tokens that only make a batch faster; None where they gain nothing.
    """

    def __init__(self, context: Context, cache: PrefixCache, *, filling: Filling | None) -> None:
        self._context = context
        self._cache = cache
        self.filling = filling
        self.prefill_tokens_per_s: float | None = None
        """The measured speed of prefill, which decides how much of it a step may hold."""

    def run(self, pieces: Sequence[Piece]) -> float:
        """Compute a step; the seconds it took."""
        tokens: list[int] = []
        positions: list[int] = []
        sequences: list[int] = []
        outputs: list[bool] = []
        for piece in pieces:
            n_tokens = len(piece.tokens)
            tokens += piece.tokens
            positions += range(piece.start, piece.start + n_tokens)
            sequences += [piece.sequence] * n_tokens
            n_before = n_tokens - piece.n_drafted - 1
            outputs += [False] * n_before + [piece.is_last] * (piece.n_drafted + 1)
        filling, n_filled = self.filling, self._n_filled(pieces, len(tokens))
        if filling is not None:
            tokens += tokens[-1:] * n_filled
            positions += range(n_filled)
            sequences += [filling.sequence] * n_filled
            outputs += [False] * n_filled
        started = time.monotonic()
        self._context.fill(tokens, positions, sequences, outputs)
        try:
            self._context.run()
        finally:
            if filling is not None and n_filled:
                self._context.remove(filling.sequence, 0, -1)
        seconds = time.monotonic() - started
        if len(tokens) > len(pieces):
            self._measure(pieces, seconds)
        return seconds

    def _n_filled(self, pieces: Sequence[Piece], n_tokens: int) -> int:
        if self.filling is None:
            return 0
        room = min(self._context.n_batch, self._cache.n_free) - n_tokens
        return self.filling.n_tokens(pieces, room=room)

    def _measure(self, pieces: Sequence[Piece], seconds: float) -> None:
        prompts = [piece for piece in pieces if len(piece.tokens) > 1 and not piece.n_drafted]
        n_tokens = sum(len(piece.tokens) for piece in prompts)
        if n_tokens >= _MIN_MEASURED and seconds > 0:
            now, before = n_tokens / seconds, self.prefill_tokens_per_s
            self.prefill_tokens_per_s = (
                now if before is None else _SPEED_MEMORY * before + (1 - _SPEED_MEMORY) * now
            )

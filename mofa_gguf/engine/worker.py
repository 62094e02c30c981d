"""The engine's work on its own thread: one request after the other, one cached sequence.

The KV cache keeps the last request's tokens; the next request reuses the prefix it shares with
them. The batching scheduler will replace this module behind the same calls.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

import numpy as np

from mofa_gguf.engine.context import ABORTED, AbortFlag, Context
from mofa_gguf.engine.errors import DeadlineExceeded, DecodeFailed, EngineClosed, EngineError
from mofa_gguf.engine.generation import Generation
from mofa_gguf.engine.logprobs import chosen_logprob
from mofa_gguf.engine.model import Model
from mofa_gguf.engine.options import EngineOptions
from mofa_gguf.engine.request import GenerationRequest
from mofa_gguf.engine.sequence import Sequence as RunningSequence

logger = logging.getLogger(__name__)


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """Length of the longest common beginning of two token lists."""
    n = min(len(a), len(b))
    for i in range(n):
        if a[i] != b[i]:
            return i
    return n


class Worker:
    """Owner of the context that generates. Used by the engine's thread only."""

    def __init__(
        self, model: Model, options: EngineOptions, *, n_ctx: int, abort: AbortFlag
    ) -> None:
        self._model = model
        self._abort = abort
        self._context = Context(
            model, options, n_ctx=n_ctx, n_batch=min(options.n_batch, n_ctx), abort=abort
        )
        self._cached: list[int] = []
        self.n_prefilled = 0
        self.n_reused = 0
        self.n_generated = 0

    @property
    def n_ctx(self) -> int:
        """Tokens the KV cache holds."""
        return self._context.n_ctx

    def generate(self, request: GenerationRequest, out: Generation, submitted_s: float) -> None:
        """Run one request to its end; its events, or its error, go to ``out``."""
        try:
            sequence = RunningSequence(self._model, request, out, submitted_s)
        except EngineError as error:
            out.push(error)
            return
        try:
            self._prefill(sequence)
            self._decode(sequence)
        except EngineError as error:
            if isinstance(error, DecodeFailed):
                self._reset()
                if error.status == ABORTED:
                    error = EngineClosed()
            out.push(error)
        finally:
            sequence.close()

    def close(self) -> None:
        """Free the context; may be called twice."""
        self._context.close()

    def _reset(self) -> None:
        self._context.clear()
        self._cached = []

    def _prefill(self, sequence: RunningSequence) -> None:
        tokens = sequence.prompt
        # The last prompt token is always computed: its logits choose the first new token.
        n_shared = min(common_prefix(self._cached, tokens), len(tokens) - 1)
        if n_shared < len(self._cached) and not self._context.forget(n_shared):
            self._context.clear()
            n_shared = 0
        del self._cached[n_shared:]
        sequence.n_cached = n_shared
        self.n_reused += n_shared
        while len(self._cached) < len(tokens) and self._wanted(sequence):
            at = len(self._cached)
            chunk = tokens[at : at + self._context.n_batch]
            self._compute(chunk, output=at + len(chunk) == len(tokens))
            self.n_prefilled += len(chunk)
        sequence.prefilled()

    def _decode(self, sequence: RunningSequence) -> None:
        while self._wanted(sequence):
            token = self._choose(sequence)
            finished = sequence.accept(token, room=self.n_ctx - len(self._cached))
            if finished:
                return
            self._compute(sequence.take_pending(), output=True)
            self.n_generated += 1

    def _wanted(self, sequence: RunningSequence) -> bool:
        """Whether to go on; a cancelled or late request is ended here."""
        if sequence.finished:
            return False
        if self._abort.is_set:
            raise EngineClosed
        if sequence.out.cancelled:
            sequence.finish("cancelled")
            return False
        deadline_s = sequence.request.deadline_s
        if deadline_s is not None and time.monotonic() - sequence.submitted_s > deadline_s:
            raise DeadlineExceeded(deadline_s)
        return True

    def _compute(self, tokens: Sequence[int], *, output: bool) -> None:
        at = len(self._cached)
        outputs = [False] * len(tokens)
        outputs[-1] = output
        self._context.decode(tokens, range(at, at + len(tokens)), outputs)
        self._cached.extend(tokens)

    def _choose(self, sequence: RunningSequence) -> int:
        request = sequence.request
        logits = self._context.logits(-1)
        before = logits.copy() if request.top_logprobs is not None else None
        if request.ignore_eos or sequence.n_generated < request.min_tokens:
            logits[list(self._model.eog_ids)] = -np.inf
        if sequence.constraint is not None:
            sequence.constraint.mask(logits)
        token = sequence.sampler.sample(self._context.handle, -1)
        if before is not None:
            assert request.top_logprobs is not None
            sequence.note_logprob(
                chosen_logprob(before, token, request.top_logprobs, self._model.vocab)
            )
        return token

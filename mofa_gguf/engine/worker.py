"""The engine's step, on its own thread: schedule, decode, sample, deliver."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence

import numpy as np

from mofa_gguf.engine.context import ABORTED, AbortFlag, Context
from mofa_gguf.engine.errors import (
    DeadlineExceeded,
    DecodeFailed,
    EngineClosed,
    EngineError,
    OutOfMemory,
    QueueFull,
)
from mofa_gguf.engine.logprobs import chosen_logprob
from mofa_gguf.engine.model import Model
from mofa_gguf.engine.native import llama
from mofa_gguf.engine.options import EngineOptions
from mofa_gguf.engine.radix import PrefixCache
from mofa_gguf.engine.request import FinishEvent
from mofa_gguf.engine.scheduler import Piece, Scheduler
from mofa_gguf.engine.sequence import Sequence as Request
from mofa_gguf.engine.session import Session
from mofa_gguf.engine.stats import Counters

logger = logging.getLogger(__name__)

_SPARE_SEQUENCES = 64
"""Sequence ids beyond the running requests', for cached branches."""
_CELL_STEP = 256
_N_RECENT = 256
_NO_TOKEN = -1
_SPEED_MEMORY = 0.7
"""How much of the measured prefill speed stays with each new measurement."""


class Worker:
    """Owner of the context that generates. Used by the engine's thread only.

    Many requests share one unified KV cache; :mod:`mofa_gguf.engine.scheduler` says who computes
    what.
    """

    def __init__(
        self, model: Model, options: EngineOptions, *, n_ctx: int, abort: AbortFlag
    ) -> None:
        self._model = model
        self._abort = abort
        shares = can_share(model)
        n_parallel = min(options.max_parallel, llama().llama_max_parallel_sequences())
        most = llama().llama_max_parallel_sequences() if shares else n_parallel
        n_sequences = min(most, n_parallel + _SPARE_SEQUENCES)
        self._context = Context(
            model,
            options,
            # Whole steps, as llama.cpp would round: never fewer cells than sequences.
            n_ctx=-(-n_ctx // _CELL_STEP) * _CELL_STEP,
            # llama.cpp wants room for one output of every sequence in a batch.
            n_batch=max(n_sequences, min(options.n_batch, n_ctx)),
            n_sequences=n_sequences,
            abort=abort,
        )
        self.cache = PrefixCache(
            self._context, n_cells=self._context.n_ctx, n_sequences=n_sequences, shares=shares
        )
        self.scheduler = Scheduler(
            self.cache, n_batch=max(n_parallel, options.n_batch), max_parallel=n_parallel
        )
        self.n_ctx = min(n_ctx, self._context.n_ctx)
        """Tokens one request may have; the cells are rounded up."""
        self.counters = Counters()
        self.n_removed = 0
        """Requests that ended, in whatever way."""
        self.recent: tuple[FinishEvent, ...] = ()
        """How the last requests ended. Replaced, never changed: other threads read it."""
        self._requests: list[Request] = []
        self._prefill_tokens_per_s: float | None = None

    @property
    def idle(self) -> bool:
        """Whether nothing waits or runs."""
        return not self._requests

    @property
    def n_requests(self) -> int:
        """Requests that wait or run."""
        return len(self._requests)

    def add(self, request: Request) -> None:
        """Take in a request."""
        self._requests.append(request)
        self.scheduler.add(request)

    def step(self) -> None:
        """One step of every request that can go on."""
        self._sort_out()
        pieces = self.scheduler.plan(tokens_per_s=self._prefill_tokens_per_s)
        if not pieces:
            return
        try:
            self._decode(pieces)
        except DecodeFailed as error:
            self._fail(pieces, error)
            return
        self.scheduler.computed(pieces)
        self._deliver(pieces)

    def save(self, tokens: Sequence[int]) -> Session:
        """The cells of the longest beginning of ``tokens`` that is cached.

        Raises QueueFull when every sequence is in use.
        """
        lease = self.cache.open([*tokens, _NO_TOKEN])  # a lease shares all but the last token
        if lease is None:
            raise QueueFull(len(self._requests))
        try:
            n_tokens = lease.n_tokens
            state = self._context.state_of(lease.sequence) if n_tokens else b""
        finally:
            self.cache.close(lease)
        return Session(list(tokens[:n_tokens]), state)

    def restore(self, session: Session) -> None:
        """Take saved cells into the prefix cache. Raises OutOfMemory, QueueFull, DecodeFailed."""
        n_tokens = len(session.tokens)
        if self.cache.match(session.tokens) == n_tokens:
            return
        if not self.cache.make_room(n_tokens):
            raise OutOfMemory(
                f"the session has {n_tokens} tokens and {self.cache.n_free} cells of the KV cache "
                "can be freed; restore it when fewer requests run, or with a larger n_ctx"
            )
        lease = self.cache.open([])
        if lease is None:
            raise QueueFull(len(self._requests))
        try:
            self._context.restore(lease.sequence, session.state)
            self.cache.extend(lease, session.tokens)
        finally:
            self.cache.close(lease)

    def start_over(self, error: BaseException) -> None:
        """After a failure that nobody foresaw: every request fails, the cache is emptied."""
        self._context.clear()
        self.scheduler.reset()
        self.fail_all(error)

    def fail_all(self, error: BaseException) -> None:
        """End every request with ``error``."""
        for request in list(self._requests):
            request.fail(error)
            self._remove(request)

    def close(self) -> None:
        """Free the context; may be called twice."""
        self._context.close()

    def _sort_out(self) -> None:
        """Take out what nobody waits for any more."""
        if self._abort.is_set:
            self.fail_all(EngineClosed())
        for request in list(self._requests):
            if request.out.cancelled:
                request.finish("cancelled")
                self._remove(request)
            elif request.late:
                assert request.request.deadline_s is not None
                request.fail(DeadlineExceeded(request.request.deadline_s))
                self._remove(request)

    def _decode(self, pieces: Sequence[Piece]) -> None:
        tokens: list[int] = []
        positions: list[int] = []
        sequences: list[int] = []
        outputs: list[bool] = []
        for piece in pieces:
            n_tokens = len(piece.tokens)
            self._note_start(piece)
            tokens += piece.tokens
            positions += range(piece.start, piece.start + n_tokens)
            sequences += [piece.sequence] * n_tokens
            outputs += [False] * (n_tokens - 1) + [piece.is_last]
        started = time.monotonic()
        self._context.fill(tokens, positions, sequences, outputs)
        self._context.run()
        self._measure(pieces, time.monotonic() - started)

    def _note_start(self, piece: Piece) -> None:
        request = piece.task
        assert isinstance(request, Request)
        request.begin()
        if not request.started:
            self.counters.n_prompt_tokens_cached += request.n_cached
        self.counters.n_prompt_tokens_computed += sum(
            1
            for position in range(piece.start, piece.start + len(piece.tokens))
            if position < request.n_prompt
        )

    def _measure(self, pieces: Sequence[Piece], seconds: float) -> None:
        """Keep the speed of prefill, which decides how much of it a step may hold."""
        self.counters.n_steps += 1
        n_tokens = sum(len(piece.tokens) for piece in pieces if len(piece.tokens) > 1)
        if n_tokens >= 32 and seconds > 0:
            now = n_tokens / seconds
            before = self._prefill_tokens_per_s
            self._prefill_tokens_per_s = (
                now if before is None else _SPEED_MEMORY * before + (1 - _SPEED_MEMORY) * now
            )

    def _deliver(self, pieces: Sequence[Piece]) -> None:
        index = -1
        for piece in pieces:
            index += len(piece.tokens)
            if not piece.is_last:
                continue
            request = piece.task
            assert isinstance(request, Request)
            try:
                self._choose(request, index)
            except Exception as error:
                logger.exception("a request failed in an unexpected way")
                request.fail(EngineError(f"the engine failed on this request: {error!r}"))
            if request.finished:
                self._remove(request)

    def _choose(self, request: Request, index: int) -> None:
        """The next token of a request, from the logits of batch token ``index``."""
        asked = request.request
        logits = self._context.logits(index)
        before = logits.copy() if asked.top_logprobs is not None else None
        if asked.ignore_eos or request.n_generated < asked.min_tokens:
            logits[list(self._model.eog_ids)] = -np.inf
        if request.constraint is not None:
            request.constraint.mask(logits)
        token = request.sampler.sample(self._context.handle, index)
        logprob = None
        if before is not None and asked.top_logprobs is not None:
            logprob = chosen_logprob(before, token, asked.top_logprobs, self._model.vocab)
        request.accept(token, logprob=logprob, n_ctx=self.n_ctx)
        self.counters.n_generated_tokens += 1

    def _fail(self, pieces: Iterable[Piece], error: DecodeFailed) -> None:
        """The batch could not be computed: its requests fail, the others start over."""
        reason: BaseException = EngineClosed() if error.status == ABORTED else error
        logger.warning("a batch failed: %s", error)
        self._context.clear()
        self.scheduler.reset()
        for piece in pieces:
            request = piece.task
            assert isinstance(request, Request)
            request.fail(reason)
            self._remove(request)

    def _remove(self, request: Request) -> None:
        self._requests.remove(request)
        self.n_removed += 1
        if request.end is not None:
            self.recent = (*self.recent[1 - _N_RECENT :], request.end)
        self.scheduler.finish(request)
        request.close()


def can_share(model: Model) -> bool:
    """Whether the model's memory can drop and share parts of sequences.

    Recurrent and hybrid models keep a state, not a cell for each token.
    """
    library = llama()
    return not (
        library.llama_model_is_recurrent(model.handle)
        or library.llama_model_is_hybrid(model.handle)
    )

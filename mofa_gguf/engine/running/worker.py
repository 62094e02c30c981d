"""The engine's step, on its own thread: schedule, decode, sample, deliver."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from functools import partial

from mofa_gguf.engine.cache.parking import Parking
from mofa_gguf.engine.cache.policy import MIN_SHARED
from mofa_gguf.engine.cache.radix import PrefixCache
from mofa_gguf.engine.cache.regrouping import Regrouping, scratch_bytes
from mofa_gguf.engine.cache.states import CellStates
from mofa_gguf.engine.drafting.wishes import Drafting
from mofa_gguf.engine.errors import (
    DeadlineExceeded,
    DecodeFailed,
    EngineClosed,
    EngineError,
)
from mofa_gguf.engine.events import emit
from mofa_gguf.engine.machine.memory import host_memory
from mofa_gguf.engine.models.context import NO_ROOM, AbortFlag, Context
from mofa_gguf.engine.models.model import Model, can_share
from mofa_gguf.engine.options import AUTO, EngineOptions
from mofa_gguf.engine.planning.context_params import generation_shape
from mofa_gguf.engine.planning.ledger import reserved
from mofa_gguf.engine.planning.sizing import parking_bytes
from mofa_gguf.engine.requests.sequence import Sequence as Request
from mofa_gguf.engine.running.batch import BatchRunner
from mofa_gguf.engine.running.choosing import Chooser
from mofa_gguf.engine.running.filling import filling_for
from mofa_gguf.engine.running.recorder import Recorder
from mofa_gguf.engine.running.solo import Solo
from mofa_gguf.engine.scheduling.scheduler import Piece, Scheduler, Task

logger = logging.getLogger(__name__)

_STEPS_BETWEEN_TIDYING = 8
_STEPS_ALONE = 32
"""Most steps of a request that is alone before the rest is looked after."""


class Worker:
    """Owner of the context that generates. Used by the engine's thread only.

    Many requests share one unified KV cache; :mod:`mofa_gguf.engine.scheduling.scheduler` says
    who computes what.
    """

    def __init__(
        self, model: Model, options: EngineOptions, *, n_ctx: int, abort: AbortFlag
    ) -> None:
        self._model = model
        self._abort = abort
        shares = can_share(model)
        shape = generation_shape(options, n_ctx=n_ctx, shares=shares)
        window = model.n_window if shares else 0
        n_sequences = shape.n_sequences // 2 if window else shape.n_sequences
        n_parallel = min(options.max_parallel, n_sequences)
        self._context = Context(model, options, shape, abort=abort, window=window)
        filling = None
        if shares and n_sequences > n_parallel:
            filling = filling_for(model, options, sequence=n_sequences - 1)
        n_sequences -= filling is not None
        on_cpu = not model.offload.n_layers
        # Cells of the others cost nothing on a GPU; plain attention goes over all in any order.
        in_tiles = on_cpu and options.flash_attn != "off"
        self.cache = PrefixCache(
            self._context,
            n_cells=self._context.n_ctx,
            n_sequences=n_sequences,
            shares=shares,
            min_shared=MIN_SHARED if in_tiles else 1,
        )
        self.scheduler = Scheduler(
            self.cache,
            n_batch=self._context.n_batch,
            max_parallel=n_parallel,
            at_once=filling.at_once if filling is not None else 0,
        )
        self.batches = BatchRunner(self._context, self.cache, filling=filling)
        self.states = CellStates(self.cache, self._context)
        n_kept = self._kept_bytes(options)
        # A state leaves out cells beyond a sliding window.
        n_scratch = scratch_bytes(n_kept) if in_tiles and not window else 0
        self.regrouping = Regrouping(self.cache, self._context, max_bytes=n_scratch)
        self.parking = Parking(self.cache, self.states, max_bytes=n_kept - n_scratch, eager=on_cpu)
        self.scheduler.recall = self.parking.recall
        self.n_ctx = min(n_ctx, self._context.n_ctx)
        """Tokens one request may have; the cells are rounded up."""
        self.drafting = Drafting(options.speculation, n_ctx=self.n_ctx)
        self.recorder = Recorder()
        self.counters = self.recorder.counters
        self._chooser = Chooser(model, self._context, self.recorder, n_ctx=self.n_ctx)
        self._solo = Solo(self._context, self.cache, self._chooser, self.drafting, self.counters)
        self.n_removed = 0
        """Requests that ended, in whatever way."""
        self._requests: list[Request] = []
        self._retried = False
        self._tidy_at = 0

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

    def step(self, interrupted: Callable[[], bool] = lambda: False) -> None:
        """One step of every request that can go on; a request that is alone makes a few.

        ``interrupted``: whether there is something to do in between.
        """
        self._sort_out()
        if self.idle or self.counters.n_steps >= self._tidy_at:
            self._tidy_at = self.counters.n_steps + _STEPS_BETWEEN_TIDYING
            self.parking.tidy()
        before, started = self.recorder.mark(), time.monotonic()
        if not self._go_on_alone(interrupted) and not self._step_together():
            return
        self.recorder.step(before, time.monotonic() - started)
        if self.idle:
            self.regrouping.regroup()

    def _go_on_alone(self, interrupted: Callable[[], bool]) -> bool:
        """Steps of a request that is alone; False where nothing was computed."""
        if len(self._requests) != 1 or not self._solo.can_go_on(self._requests[0]):
            return False
        request, n_before = self._requests[0], self.counters.n_steps
        try:
            self._guarded(request, partial(self._solo.go_on, request, _STEPS_ALONE, interrupted))
        except DecodeFailed as error:
            self._fail([request], error)
            return False
        if request.finished:
            self._remove(request)
        return self.counters.n_steps > n_before

    def _step_together(self) -> bool:
        """One step of all, as the scheduler plans it; False where nothing was computed."""
        arriving = [task for task in self.scheduler.waiting if not task.recalled]
        if arriving and not self.scheduler.full:
            self.parking.make_way([task.tokens for task in arriving])
        speed = self.batches.prefill_tokens_per_s
        pieces = self.scheduler.plan(tokens_per_s=speed, guess=self.drafting)
        if not pieces:
            return False
        try:
            self._compute(pieces)
        except DecodeFailed as error:
            self._fail([piece.task for piece in pieces], error)
            return False
        self._retried = False
        self.scheduler.computed(pieces)
        self._deliver(pieces)
        return True

    def start_over(self, error: BaseException) -> None:
        """After a failure that nobody foresaw: every request fails, the cache is emptied."""
        self._context.clear()
        self.scheduler.reset()
        self.drafting.start_over()
        self.fail_all(error)

    def fail_all(self, error: BaseException) -> None:
        """End every request with ``error``."""
        for request in list(self._requests):
            request.fail(error)
            self._remove(request)

    def close(self) -> None:
        """Free the context and what guesses for it; may be called twice."""
        self.drafting.close()
        self._context.close()

    def _kept_bytes(self, options: EngineOptions) -> int:
        """The host's memory for cells that are out of the cache."""
        if options.prefix_memory != AUTO:
            return options.prefix_memory
        # What this model and others were promised looks free until they use it.
        return parking_bytes(host_memory().free_bytes - reserved())

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

    def _compute(self, pieces: Sequence[Piece]) -> None:
        for piece in pieces:
            self._note_start(piece)
        seconds = self.batches.run(pieces)
        self.counters.n_steps += 1
        self.drafting.note(sum(len(piece.tokens) for piece in pieces), seconds)

    def _note_start(self, piece: Piece) -> None:
        request = piece.task
        assert isinstance(request, Request)
        request.begin()
        if not request.started:
            self.counters.n_prompt_tokens_cached += request.n_cached
        n_left = request.n_prompt - piece.start
        self.counters.n_prompt_tokens_computed += max(0, min(n_left, len(piece.tokens)))

    def _deliver(self, pieces: Sequence[Piece]) -> None:
        begin = 0
        for piece in pieces:
            request = piece.task
            assert isinstance(request, Request)
            if piece.is_last:
                self._guarded(request, partial(self._advance, request, piece, begin))
                self.scheduler.settle(piece)
            begin += len(piece.tokens)
            if request.finished:
                self._remove(request)

    def _advance(self, request: Request, piece: Piece, begin: int) -> None:
        """The next token of a request, and the ones after it while they are those guessed.

        ``begin``: where the piece begins in the batch. Each token is chosen from the logits behind
        the tokens before it, in order, by the request's own sampler: just as without guesses.
        """
        n_before = request.n_accepted_tokens
        request.expect(piece.guessed)
        while not request.finished:
            self._chooser.choose(request, begin + len(request.tokens) - 1 - piece.start)
            if not request.as_guessed:
                break
        self.counters.n_drafted_tokens += piece.n_drafted
        self.counters.n_accepted_tokens += request.n_accepted_tokens - n_before

    def _guarded(self, request: Request, function: Callable[[], None]) -> None:
        """Call what computes or delivers; what the request's own parts raise fails no other."""
        try:
            function()
        except DecodeFailed:
            raise
        except EngineError as error:
            request.fail(error)
        except Exception as error:
            logger.exception("a request failed in an unexpected way")
            request.fail(EngineError(f"the engine failed on this request: {error!r}"))

    def _fail(self, computing: Sequence[Task], error: DecodeFailed) -> None:
        """The batch could not be computed: its requests fail, the others start over.

        Where llama.cpp has no room for what ought to fit, all are computed again once: an empty
        cache may have what a scattered one has not.
        """
        if self._abort.is_set:  # no failure: the engine is being closed
            self.fail_all(EngineClosed())
            return
        emit(
            logger,
            "engine.decode_failed",
            n_requests=len(computing),
            status=error.status,
            reason=str(error),
        )
        self._context.clear()
        self.scheduler.reset()
        if error.status == NO_ROOM and not self._retried:
            self._retried = True
            return
        self._retried = False
        for request in computing:
            assert isinstance(request, Request)
            request.fail(error)
            self._remove(request)

    def _remove(self, request: Request) -> None:
        self._requests.remove(request)
        self.n_removed += 1
        if request.end is not None:
            self.recorder.answer(request.end)
        self.scheduler.finish(request)
        self.drafting.release(request)
        request.close()

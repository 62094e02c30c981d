"""One loaded model, one thread: requests go in through a queue, events come out."""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mofa_gguf.engine.context import AbortFlag
from mofa_gguf.engine.devices import available_memory_bytes
from mofa_gguf.engine.embedding import Embedder, longest_input
from mofa_gguf.engine.errors import (
    EngineClosed,
    EngineError,
    InvalidOption,
    PromptTooLong,
    QueueFull,
    UnsupportedModel,
)
from mofa_gguf.engine.generation import Generation
from mofa_gguf.engine.model import Model
from mofa_gguf.engine.native import llama
from mofa_gguf.engine.options import EngineOptions
from mofa_gguf.engine.request import GenerationRequest
from mofa_gguf.engine.sizing import auto_context
from mofa_gguf.engine.worker import Worker

logger = logging.getLogger(__name__)

_open_engines: weakref.WeakSet[Engine] = weakref.WeakSet()


@dataclass(frozen=True)
class EngineStats:
    """Counts since the engine was loaded."""

    n_waiting: int
    n_running: int
    n_requests: int
    n_prompt_tokens_computed: int
    n_prompt_tokens_cached: int
    n_generated_tokens: int


@dataclass
class _Job:
    run: Callable[[], None]
    fail: Callable[[BaseException], None]


class Engine:
    """Runs one model. Every method may be called from any thread.

    Close it when done; what is running or waiting then ends with EngineClosed.
    """

    def __init__(self, model: Model, options: EngineOptions, *, n_ctx: int) -> None:
        self.model = model
        self.options = options
        self._abort = AbortFlag()
        self._worker = (
            None if model.is_encoder else Worker(model, options, n_ctx=n_ctx, abort=self._abort)
        )
        self._embedder: Embedder | None = None
        self._jobs: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._running: _Job | None = None
        self._closed = False
        self._n_requests = 0
        self._pid = os.getpid()
        self._thread = threading.Thread(target=self._loop, name="mofa-gguf-engine", daemon=True)
        self._thread.start()
        _open_engines.add(self)

    @classmethod
    def load(
        cls,
        path: Path | str,
        options: EngineOptions | None = None,
        *,
        progress: Callable[[float], None] | None = None,
    ) -> Engine:
        """Load the GGUF file at ``path``; blocks. ``progress`` gets the loaded share, 0 to 1.

        Raises ModelFileError, UnsupportedModel, DeviceUnavailable, InvalidOption or OutOfMemory.
        """
        options = options or EngineOptions()
        available = available_memory_bytes()
        model = Model.load(path, options, progress=progress)
        try:
            _refuse_encoder_decoder(model)
            n_ctx = options.n_ctx
            if n_ctx == "auto":
                on_cpu = 1 - model.offload.n_layers / max(1, model.offload.n_total)
                n_ctx = auto_context(
                    model.header,
                    type_k=options.cache_type_k,
                    type_v=options.cache_type_v,
                    available_bytes=available,
                    weights_bytes=int(model.n_bytes * on_cpu),
                )
            return cls(model, options, n_ctx=n_ctx)
        except BaseException:
            model.close()
            raise

    @property
    def n_ctx(self) -> int:
        """Tokens one request's prompt and answer may have together."""
        if self._worker is None:
            return longest_input(self.model, self.options)
        return self._worker.n_ctx

    @property
    def can_generate(self) -> bool:
        """Whether the model generates text (encoders only embed)."""
        return self._worker is not None

    @property
    def n_embedding_max(self) -> int:
        """Most tokens of one text to embed."""
        return longest_input(self.model, self.options)

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._closed

    def submit(self, request: GenerationRequest) -> Generation:
        """Queue a request and return its stream of events.

        Raises PromptTooLong, InvalidOption, QueueFull or EngineClosed at once; what fails later
        comes out of the stream.
        """
        worker = self._worker
        if worker is None:
            raise InvalidOption("model", "is an encoder: it embeds text but cannot generate")
        if not request.tokens:
            raise InvalidOption("tokens", "is empty; a prompt needs at least one token")
        if len(request.tokens) >= worker.n_ctx:
            raise PromptTooLong(len(request.tokens), worker.n_ctx)
        generation = Generation()
        run = partial(worker.generate, request, generation, time.monotonic())
        self._enqueue(_Job(run, generation.push))
        return generation

    def embed(
        self, inputs: Sequence[Sequence[int]], *, normalize: bool = True
    ) -> Future[list[list[float]]]:
        """Queue texts (as tokens) to embed; the future gives one vector each.

        Raises PromptTooLong, QueueFull or EngineClosed at once.
        """
        for tokens in inputs:
            if len(tokens) > self.n_embedding_max:
                raise PromptTooLong(len(tokens), self.n_embedding_max, what="one embedding")
        future: Future[list[list[float]]] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                if self._embedder is None:
                    self._embedder = Embedder(self.model, self.options, self._abort)
                future.set_result(self._embedder.embed(inputs, normalize=normalize))
            except EngineError as error:
                future.set_exception(error)

        def fail(error: BaseException) -> None:
            if not future.done() and not future.cancelled():
                future.set_exception(error)

        self._enqueue(_Job(run, fail))
        return future

    def stats(self) -> EngineStats:
        """Counts since the engine was loaded."""
        worker = self._worker
        with self._changed:
            return EngineStats(
                n_waiting=len(self._jobs),
                n_running=int(self._running is not None),
                n_requests=self._n_requests,
                n_prompt_tokens_computed=worker.n_prefilled if worker else 0,
                n_prompt_tokens_cached=worker.n_reused if worker else 0,
                n_generated_tokens=worker.n_generated if worker else 0,
            )

    def close(self) -> None:
        """End everything and free the model; returns when done, may be called twice."""
        with self._changed:
            first = not self._closed
            self._closed = True
            waiting = list(self._jobs)
            self._jobs.clear()
            self._changed.notify_all()
        if os.getpid() != self._pid:
            return  # a forked child has neither the thread nor a right to the parent's memory
        if first:
            self._abort.set()
            for job in waiting:
                job.fail(EngineClosed())
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _enqueue(self, job: _Job) -> None:
        with self._changed:
            if self._closed:
                raise EngineClosed
            if os.getpid() != self._pid:
                raise EngineClosed("the engine belongs to the process that loaded it, not a fork")
            if len(self._jobs) >= self.options.max_queue:
                raise QueueFull(self.options.max_queue)
            self._jobs.append(job)
            self._n_requests += 1
            self._changed.notify_all()

    def _next(self) -> _Job | None:
        with self._changed:
            self._running = None
            while not self._jobs and not self._closed:
                self._changed.wait()
            if self._closed:
                return None
            self._running = self._jobs.popleft()
            return self._running

    def _loop(self) -> None:
        while (job := self._next()) is not None:
            try:
                job.run()
            except Exception as error:  # a bug must fail its request, not the engine
                logger.exception("a request failed in an unexpected way")
                job.fail(EngineError(f"the engine failed on this request: {error!r}"))
        self._release()

    def _release(self) -> None:
        if self._embedder is not None:
            self._embedder.close()
        if self._worker is not None:
            self._worker.close()
        self.model.close()


def _refuse_encoder_decoder(model: Model) -> None:
    library = llama()
    if library.llama_model_has_encoder(model.handle) and library.llama_model_has_decoder(
        model.handle
    ):
        raise UnsupportedModel(
            model.path,
            f"{model.header.architecture} is an encoder-decoder model, which cannot be run here",
            architecture=model.header.architecture,
        )


@atexit.register
def _close_all() -> None:
    for engine in list(_open_engines):
        engine.close()

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
from pathlib import Path
from typing import TypeVar

from mofa_gguf.engine.context import AbortFlag
from mofa_gguf.engine.devices import available_memory_bytes
from mofa_gguf.engine.embedding import Embedder, EmbeddingTask, longest_input
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
from mofa_gguf.engine.sequence import Sequence as Request
from mofa_gguf.engine.sizing import auto_context
from mofa_gguf.engine.stats import Counters, EngineStats, speed_of
from mofa_gguf.engine.worker import Worker

logger = logging.getLogger(__name__)

_EntryT = TypeVar("_EntryT")
_open_engines: weakref.WeakSet[Engine] = weakref.WeakSet()


class Engine:
    """Runs one model for many requests at once. Every method may be called from any thread.

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
        self._arrived: deque[Request] = deque()
        self._embeddings: deque[EmbeddingTask] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._n_requests = 0
        self._n_active = 0
        self._n_running = 0
        self._n_cells_cached = 0
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
        n_vocab = self.model.vocab.n_tokens
        if not all(0 <= token < n_vocab for token in request.tokens):
            raise InvalidOption("tokens", f"must be ids from 0 to {n_vocab - 1}")
        if len(request.tokens) >= worker.n_ctx:
            raise PromptTooLong(len(request.tokens), worker.n_ctx)
        generation = Generation()
        self._check_open()
        entry = Request(self.model, request, generation, time.monotonic())
        try:
            self._enqueue(self._arrived, entry)
        except EngineError:
            entry.close()
            raise
        return generation

    def embed(
        self, inputs: Sequence[Sequence[int]], *, normalize: bool = True
    ) -> Future[list[list[float]]]:
        """Queue texts (as tokens) to embed; the future gives one vector each.

        Raises PromptTooLong, InvalidOption, QueueFull or EngineClosed at once.
        """
        for tokens in inputs:
            if not tokens:
                raise InvalidOption("tokens", "is empty; a text to embed needs at least one token")
            if len(tokens) > self.n_embedding_max:
                raise PromptTooLong(len(tokens), self.n_embedding_max, what="one embedding")
        task = EmbeddingTask(inputs, normalize=normalize)
        self._enqueue(self._embeddings, task)
        return task.future

    def stats(self) -> EngineStats:
        """What is going on, counts since the engine was loaded, and the last answers' speed."""
        worker = self._worker
        counters = worker.counters if worker else Counters()
        return EngineStats(
            n_waiting=max(0, self._n_active - self._n_running),
            n_running=self._n_running,
            n_requests=self._n_requests,
            n_prompt_tokens_computed=counters.n_prompt_tokens_computed,
            n_prompt_tokens_cached=counters.n_prompt_tokens_cached,
            n_generated_tokens=counters.n_generated_tokens,
            n_steps=counters.n_steps,
            n_cells=worker.cache.n_cells if worker else 0,
            n_cells_used=worker.cache.n_used if worker else 0,
            n_cells_cached=self._n_cells_cached,
            speed=speed_of(list(worker.recent) if worker else []),
        )

    def close(self) -> None:
        """End everything and free the model; returns when done, may be called twice."""
        if os.getpid() != self._pid:
            return  # a forked child has neither the thread nor a right to the parent's memory
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._abort.set()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _check_open(self) -> None:
        if self._closed:
            raise EngineClosed
        if os.getpid() != self._pid:
            raise EngineClosed("the engine belongs to the process that loaded it, not to a fork")

    def _enqueue(self, queue: deque[_EntryT], entry: _EntryT) -> None:
        limit = self.options.max_parallel + self.options.max_queue
        with self._changed:
            self._check_open()
            if self._n_active >= limit:
                raise QueueFull(self.options.max_queue)
            queue.append(entry)
            self._n_requests += 1
            self._n_active += 1
            self._changed.notify_all()

    def _loop(self) -> None:
        while self._wait_for_work():
            if self._worker is not None:
                while self._arrived:
                    self._worker.add(self._arrived.popleft())
                self._worker.step()
            if self._embeddings:
                self._embed_next()
            self._count()
        self._release()

    def _wait_for_work(self) -> bool:
        """Sleep until there is something to do; False when the engine is closed."""
        with self._changed:
            while not self._closed and not self._arrived and not self._embeddings:
                if self._worker is not None and not self._worker.idle:
                    break
                self._changed.wait()
            return not self._closed

    def _embed_next(self) -> None:
        task = self._embeddings[0]
        try:
            if self._embedder is None:
                self._embedder = Embedder(self.model, self.options, self._abort)
            if not task.step(self._embedder):
                return
        except EngineError as error:
            task.fail(error)
        self._embeddings.popleft()

    def _count(self) -> None:
        worker = self._worker
        with self._changed:
            n_requests = worker.n_requests if worker is not None else 0
            self._n_active = n_requests + len(self._arrived) + len(self._embeddings)
            self._n_running = len(worker.scheduler.running) if worker is not None else 0
            self._n_cells_cached = worker.cache.n_evictable if worker is not None else 0

    def _release(self) -> None:
        for task in self._embeddings:
            task.fail(EngineClosed())
        if self._worker is not None:
            for request in self._arrived:
                self._worker.add(request)
            self._worker.fail_all(EngineClosed())
            self._worker.close()
        if self._embedder is not None:
            self._embedder.close()
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

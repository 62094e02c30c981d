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
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from mofa_gguf.engine.cache.session import fingerprint, read_session, write_session
from mofa_gguf.engine.drafting.draft_model import check_target, load_drafter
from mofa_gguf.engine.errors import (
    EngineClosed,
    EngineError,
    InvalidOption,
    PromptTooLong,
    QueueFull,
    SessionError,
)
from mofa_gguf.engine.files.header import read_header
from mofa_gguf.engine.models.context import AbortFlag
from mofa_gguf.engine.models.loading import load_model
from mofa_gguf.engine.models.model import Model, refuse_encoder_decoder
from mofa_gguf.engine.native import llama
from mofa_gguf.engine.options import EngineOptions
from mofa_gguf.engine.planning.embedding import EmbeddingPlan
from mofa_gguf.engine.planning.ledger import promised
from mofa_gguf.engine.planning.load_plan import LoadPlan
from mofa_gguf.engine.planning.whole import plan_whole
from mofa_gguf.engine.requests.generation import Generation
from mofa_gguf.engine.requests.request import GenerationRequest
from mofa_gguf.engine.requests.sequence import Sequence as Request
from mofa_gguf.engine.requests.tasks import CallTask, SideTask
from mofa_gguf.engine.running.company import Company
from mofa_gguf.engine.running.embedders import Embedders
from mofa_gguf.engine.running.embedding import EmbeddingTask, longest_input
from mofa_gguf.engine.running.recorder import Recorder
from mofa_gguf.engine.running.stats import EngineStats, latency_of, speed_of, throughput_of
from mofa_gguf.engine.running.worker import Worker

logger = logging.getLogger(__name__)

_EntryT = TypeVar("_EntryT")
_open_engines: weakref.WeakSet[Engine] = weakref.WeakSet()


class Engine:
    """Runs one model for many requests at once. Every method may be called from any thread.

    Close it when done; what is running or waiting then ends with EngineClosed.
    """

    def __init__(
        self,
        model: Model,
        options: EngineOptions,
        *,
        n_ctx: int,
        embedding: EmbeddingPlan | None = None,
    ) -> None:
        self.model = model
        self.options = options
        self._abort = AbortFlag()
        self._worker = (
            None if model.only_embeds else Worker(model, options, n_ctx=n_ctx, abort=self._abort)
        )
        self._embedders = Embedders(model, options, self._abort, embedding)
        self._arrived: deque[Request] = deque()
        self._side_tasks: deque[SideTask] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._n_requests = 0
        self._n_active = 0
        self._n_running = 0
        self._n_cells_cached = 0
        self._n_removed = 0
        self._company = Company()
        self._pid = os.getpid()
        self._thread = threading.Thread(target=self._run, name="mofa-gguf-engine", daemon=True)
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

        def build(model: Model, load: LoadPlan) -> Engine:
            refuse_encoder_decoder(model)
            return cls(model, load.options, n_ctx=load.plan.n_ctx, embedding=load.embedding)

        options = options or EngineOptions()
        if options.draft_model is None:
            return load_model(path, options, build, progress=progress)
        whole = plan_whole(read_header(path), options)
        whole.check()
        assert whole.draft is not None
        with promised(whole.draft.all_bytes):
            engine = load_model(path, options, build, progress=progress)
        try:
            engine._load_draft(progress)
        except BaseException:
            engine.close()
            raise
        return engine

    @property
    def n_ctx(self) -> int:
        """Tokens one request's prompt and answer may have together."""
        if self._worker is None:
            return longest_input(self.model, self.options)
        return self._worker.n_ctx

    @property
    def can_generate(self) -> bool:
        """Whether the model generates text; others only embed."""
        return self._worker is not None

    @property
    def n_embedding_max(self) -> int:
        """Most tokens of one text to embed."""
        return longest_input(self.model, self.options)

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._closed

    @property
    def outdated(self) -> bool:
        """Whether the model should be loaded anew before the next request: workers with layers of
        it went away, or some that were missing when it was loaded are there."""
        return self.model.outdated

    def submit(self, request: GenerationRequest) -> Generation:
        """Queue a request and return its stream of events.

        Raises PromptTooLong, InvalidOption, QueueFull or EngineClosed at once; what fails later
        comes out of the stream.
        """
        worker = self._worker
        if worker is None:
            raise InvalidOption("model", "is made for embedding: it cannot generate text")
        if not request.tokens:
            raise InvalidOption("tokens", "is empty; a prompt needs at least one token")
        n_vocab = self.model.vocab.n_tokens
        if not all(0 <= token < n_vocab for token in request.tokens):
            raise InvalidOption("tokens", f"must be ids from 0 to {n_vocab - 1}")
        if len(request.tokens) >= worker.n_ctx:
            raise PromptTooLong(len(request.tokens), worker.n_ctx)
        if request.speculation == "draft-model" and worker.drafting.drafter is None:
            raise InvalidOption("speculation", 'is "draft-model", but the model has no draft_model')
        generation = Generation()
        self._check_open()
        entry = Request(self.model, request, generation.outbox, time.monotonic())
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
        self._check_inputs(inputs)
        task = EmbeddingTask(self._embedders.embedder, inputs, normalize=normalize)
        self._enqueue(self._side_tasks, task)
        return task.future

    def rank(self, inputs: Sequence[Sequence[int]]) -> Future[list[list[float]]]:
        """Queue pairs of texts (as tokens) to judge; the future gives the head's outputs for each.

        The first output says how well the two fit, on the model's own scale. Raises InvalidOption
        for a model without such a head, and what :meth:`embed` raises.
        """
        if not self.model.ranks:
            raise InvalidOption("model", "is no reranker: it has no head that judges two texts")
        self._check_inputs(inputs)
        task = EmbeddingTask(self._embedders.ranker, inputs, normalize=False)
        self._enqueue(self._side_tasks, task)
        return task.future

    def _check_inputs(self, inputs: Sequence[Sequence[int]]) -> None:
        n_vocab = self.model.vocab.n_tokens
        for tokens in inputs:
            if not tokens:
                raise InvalidOption("tokens", "is empty; a text to embed needs at least one token")
            if not all(0 <= token < n_vocab for token in tokens):
                raise InvalidOption("tokens", f"must be ids from 0 to {n_vocab - 1}")
            if len(tokens) > self.n_embedding_max:
                raise PromptTooLong(len(tokens), self.n_embedding_max, what="one embedding")

    def save_session(self, tokens: Sequence[int], path: Path | str) -> Future[int]:
        """Write what is cached of ``tokens`` to a file; the future gives how many tokens that is.

        Raises SessionError where nothing of them is cached or the file cannot be written.
        """
        worker, target = self._session_worker(path)

        def save() -> int:
            session = worker.save(tokens)
            if not session.tokens:
                raise SessionError(target, "would be empty: nothing of the conversation is cached")
            write_session(target, session, self._fingerprint)
            return len(session.tokens)

        return self._call(save)

    def load_session(self, path: Path | str) -> Future[int]:
        """Take a saved conversation into the prefix cache; the future gives its tokens' number.

        Raises SessionError for a file of another model or a damaged one, and OutOfMemory.
        """
        worker, source = self._session_worker(path)

        def load() -> int:
            session = read_session(source, self._fingerprint)
            worker.restore(session)
            return len(session.tokens)

        return self._call(load)

    def stats(self) -> EngineStats:
        """What is going on, counts since the engine was loaded, and the last answers' speed."""
        worker = self._worker
        recorder = worker.recorder if worker else Recorder()
        counters = recorder.counters
        return EngineStats(
            n_waiting=max(0, self._n_active - self._n_running),
            n_running=self._n_running,
            n_requests=self._n_requests,
            n_prompt_tokens_computed=counters.n_prompt_tokens_computed,
            n_prompt_tokens_cached=counters.n_prompt_tokens_cached,
            n_generated_tokens=counters.n_generated_tokens,
            n_drafted_tokens=counters.n_drafted_tokens,
            n_accepted_tokens=counters.n_accepted_tokens,
            n_steps=counters.n_steps,
            n_cells=worker.cache.n_cells if worker else 0,
            n_cells_used=worker.cache.n_used if worker else 0,
            n_cells_cached=self._n_cells_cached,
            speed=speed_of(recorder.answers()),
            latency=latency_of(recorder),
            throughput=throughput_of(recorder.steps()),
            n_draft_steps=worker.drafting.n_draft_steps if worker else 0,
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

    def _load_draft(self, progress: Callable[[float], None] | None) -> None:
        """Load the draft model. Nobody has this engine yet, so its thread waits meanwhile."""
        check_target(self.model)
        assert self._worker is not None
        n_ctx = self._worker.cache.n_cells
        drafting = self._worker.drafting
        drafting.drafter = load_drafter(
            self.model, self.options, n_ctx=n_ctx, abort=self._abort, progress=progress
        )

    @cached_property
    def _fingerprint(self) -> dict[str, Any]:
        version: bytes = llama().llama_version()
        return fingerprint(self.model.header, self.options, library=version.decode())

    def _session_worker(self, path: Path | str) -> tuple[Worker, Path]:
        if self._worker is None or not self._worker.cache.shares:
            raise SessionError(path, "cannot be: this model keeps no cells that could be saved")
        return self._worker, Path(path)

    def _call(self, function: Callable[[], int]) -> Future[int]:
        task = CallTask(function)
        self._enqueue(self._side_tasks, task)
        return task.future

    def _check_open(self) -> None:
        if os.getpid() != self._pid:
            raise EngineClosed(
                "the engine belongs to the process that loaded it, not to a fork; "
                "load the model in the new process"
            )
        if self._closed:
            raise EngineClosed

    def _enqueue(self, queue: deque[_EntryT], entry: _EntryT) -> None:
        limit = self.options.max_parallel + self.options.max_queue
        self._check_open()  # before the lock too: in a fork nobody may be there to release it
        with self._changed:
            self._check_open()
            if self._n_active >= limit:
                raise QueueFull(self.options.max_queue)
            queue.append(entry)
            self._n_requests += 1
            self._n_active += 1
            self._changed.notify_all()

    def _run(self) -> None:
        try:
            self._loop()
        finally:  # however the loop ended, nobody may wait for ever
            with self._changed:
                self._closed = True
            self._release()

    def _loop(self) -> None:
        while self._wait_for_work():
            if self._worker is not None:
                while self._arrived:
                    self._worker.add(self._arrived.popleft())
                try:
                    self._worker.step()
                except Exception as error:  # a bug must not end the thread that all wait for
                    logger.exception("a step failed in an unexpected way")
                    self._worker.start_over(EngineError(f"the engine failed: {error!r}"))
            if self._side_tasks:
                self._side_step()
            self._count()

    def _wait_for_work(self) -> bool:
        """Sleep until there is something to do; False when the engine is closed."""
        with self._changed:
            while not self._closed and not self._arrived and not self._side_tasks:
                worker = self._worker
                if worker is not None and not worker.idle:
                    break
                due = worker.parking.due_in() if worker is not None else None
                if not self._changed.wait(due):
                    break
                self._company.gather(self._changed, self._arrived)
            return not self._closed

    def _side_step(self) -> None:
        """A step of what is no generation; running streams wait for it."""
        task = self._side_tasks[0]
        try:
            if not task.step():
                return
        except EngineError as error:
            task.fail(EngineClosed() if self._abort.is_set else error)
        # A bug must fail its task, not the engine; nor must what a reader's callback raises, be it
        # SystemExit, for that runs here when a future is settled.
        except BaseException as error:
            logger.exception("a task failed in an unexpected way")
            task.fail(EngineError(f"the engine failed on this task: {error!r}"))
        self._side_tasks.popleft()

    def _count(self) -> None:
        worker = self._worker
        with self._changed:
            n_requests = worker.n_requests if worker is not None else 0
            self._n_active = n_requests + len(self._arrived) + len(self._side_tasks)
            self._n_running = len(worker.scheduler.running) if worker is not None else 0
            self._company.note(n_requests)
            # Counting the cached cells goes through the whole tree: only when a request ended.
            if worker is not None and worker.n_removed != self._n_removed:
                self._n_removed = worker.n_removed
                self._n_cells_cached = worker.cache.n_evictable

    def _release(self) -> None:
        for task in self._side_tasks:
            task.fail(EngineClosed())
        if self._worker is not None:
            for request in self._arrived:
                self._worker.add(request)
            self._worker.fail_all(EngineClosed())
            self._worker.close()
        self._embedders.close()
        self.model.close()


@atexit.register
def _close_all() -> None:
    for engine in list(_open_engines):
        engine.close()

"""One loaded model, one thread: requests go in through a queue, events come out."""

from __future__ import annotations

import atexit
import time
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import Any

from mofa_gguf.engine.cache.session import fingerprint, read_session, write_session
from mofa_gguf.engine.drafting.draft_model import check_target, load_drafter
from mofa_gguf.engine.errors import (
    EngineError,
    InvalidOption,
    PromptTooLong,
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
from mofa_gguf.engine.requests.tasks import CallTask
from mofa_gguf.engine.running.embedders import Embedders
from mofa_gguf.engine.running.embedding import EmbeddingTask, longest_input
from mofa_gguf.engine.running.loop import Loop
from mofa_gguf.engine.running.recorder import Recorder
from mofa_gguf.engine.running.stats import EngineStats, latency_of, speed_of, throughput_of
from mofa_gguf.engine.running.worker import Worker

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
        self._loop = Loop(
            self._worker,
            abort=self._abort,
            max_entries=options.max_parallel + options.max_queue,
            max_queue=options.max_queue,
            release=self._release,
        )
        self._loop.start()
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
        return self._loop.closed

    @property
    def outdated(self) -> bool:
        """Whether the model should be loaded anew before the next request: workers with layers of
        it went away, some that were missing when it was loaded are there, or the engine ended."""
        return self.closed or self.model.outdated

    def kept(self) -> AbstractContextManager[None]:
        """While the block runs the model's memory stays, whoever closes the engine meanwhile.

        For calls that read it on other threads, such as its vocabulary's; to be left soon, and not
        to be closed within. Raises EngineClosed.
        """
        self._loop.check_open()
        return self.model.kept()

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
        with self.kept():
            entry = Request(self.model, request, generation.outbox, time.monotonic())
        try:
            self._loop.add_request(entry)
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
        self._loop.add_task(task)
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
        self._loop.add_task(task)
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
            session = worker.states.save(tokens)
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
            worker.states.restore(session)
            return len(session.tokens)

        return self._call(load)

    def stats(self) -> EngineStats:
        """What is going on, counts since the engine was loaded, and the last answers' speed."""
        worker, loop = self._worker, self._loop
        recorder = worker.recorder if worker else Recorder()
        counters = recorder.counters
        return EngineStats(
            n_waiting=max(0, loop.n_active - loop.n_running),
            n_running=loop.n_running,
            n_requests=loop.n_requests,
            n_prompt_tokens_computed=counters.n_prompt_tokens_computed,
            n_prompt_tokens_cached=counters.n_prompt_tokens_cached,
            n_generated_tokens=counters.n_generated_tokens,
            n_drafted_tokens=counters.n_drafted_tokens,
            n_accepted_tokens=counters.n_accepted_tokens,
            n_steps=counters.n_steps,
            n_cells=worker.cache.n_cells if worker else 0,
            n_cells_used=worker.cache.n_used if worker else 0,
            n_cells_cached=loop.n_cells_cached,
            speed=speed_of(recorder.answers()),
            latency=latency_of(recorder),
            throughput=throughput_of(recorder.steps()),
            n_draft_steps=worker.drafting.n_draft_steps if worker else 0,
        )

    def close(self) -> None:
        """End everything and free the model; returns when done, may be called twice."""
        self._loop.close()

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
        self._loop.add_task(task)
        return task.future

    def _release(self) -> None:
        self._embedders.close()
        self.model.close()


@atexit.register
def _close_all() -> None:
    for engine in list(_open_engines):
        engine.close()

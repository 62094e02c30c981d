"""A file of requests through a provider, to a file of answers."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from mofa_gguf.batch.errors import BatchStopped, OutputUnusable
from mofa_gguf.batch.jobs import Job, LineError, read_job
from mofa_gguf.batch.options import BatchOptions, BatchReport
from mofa_gguf.batch.output import BatchOutput
from mofa_gguf.batch.records import failure, failure_of, success, write_record
from mofa_gguf.batch.survey import Survey, survey
from mofa_gguf.contract import (
    ChatCompletionRequest,
    ChatCompletionResponse,
    EmbeddingResponse,
    LLMError,
    LLMProvider,
)
from mofa_gguf.host.in_flight import in_flight, patiently
from mofa_gguf.host.streams import closing

log = logging.getLogger(__name__)

T = TypeVar("T")
Answer = ChatCompletionResponse | EmbeddingResponse | Exception
OnProgress = Callable[[BatchReport], None]


async def run_batch(
    provider: LLMProvider,
    source: Path | str,
    output: Path | str,
    options: BatchOptions | None = None,
    *,
    on_progress: OnProgress | None = None,
) -> BatchReport:
    """Answer every line of ``source`` that ``output`` does not answer yet.

    Called again with the same arguments, it goes on where it was stopped, however it was: a line is
    on the disk whole before it counts. Lines may have been added to the end of the input. A line
    that fails is answered with an error, and the rest goes on. What is in flight when the call is
    cancelled is given up, and computed by the next run.

    Args:
        provider: what answers; stays open.
        source: JSON lines, see ``jobs`` for their forms.
        output: OpenAI's batch output lines, see ``records``; made, or gone on with.
        options: how it is run.
        on_progress: told how far the batch is, at the start and whenever lines were written.

    Raises:
        InputUnusable, DuplicateIds: of the input, before anything is computed.
        OutputUnusable, OtherBatch, OutputInUse: of the output.
        BatchStopped: many requests in a row failed with the same words.
    """
    options = options or BatchOptions()
    source, output = Path(source), Path(output)
    if source.exists() and output.exists() and source.samefile(output):
        raise OutputUnusable(output, "is the input; choose another output")
    known = await _in_thread(partial(survey, source))
    digest = options.digest(provider)
    with BatchOutput(output, known, digest, any_options=options.retry_failed) as file:
        await _in_thread(file.recover)
        if options.retry_failed:
            await _in_thread(file.drop_failed)
        run = _Run(provider, options, digest, known, file, on_progress or (lambda report: None))
        report = await run.to_the_end()
        if options.ordered:
            await _in_thread(file.put_in_order)
        return report


class _Run:
    """One run over the lines that have no answer yet."""

    def __init__(
        self,
        provider: LLMProvider,
        options: BatchOptions,
        digest: str,
        known: Survey,
        file: BatchOutput,
        on_progress: OnProgress,
    ) -> None:
        self._provider = provider
        self._options = options
        self._digest = digest
        self._known = known
        self._file = file
        self._on_progress = on_progress
        self._n_done_before = file.n_done
        self._tokens = {"prompt": 0, "completion": 0, "cached": 0}
        self._began_s = time.monotonic()
        self._last_failure: tuple[str, str] | None = None
        self._n_alike = 0

    async def to_the_end(self) -> BatchReport:
        self._on_progress(self._report())
        answers = in_flight(self._jobs(), self._answer, limit=self._options.parallel)
        async with closing(answers) as groups:
            async for group in groups:
                lines = [self._record(job, answer) for job, answer in group]
                await _in_thread(partial(self._file.append, lines))
                for job, answer in group:
                    self._tally(job, answer)
                self._on_progress(self._report())
                self._check_failures()
        return self._report()

    def _jobs(self) -> Iterator[Job]:
        for number, line in self._known.lines():
            if not self._file.has(number):
                yield read_job(number, line, self._options)

    async def _answer(self, job: Job) -> Answer:
        if isinstance(job.request, LineError):
            return job.request
        request = job.request
        try:
            if isinstance(request, ChatCompletionRequest):
                return await self._patiently(partial(self._provider.chat, request))
            return await self._patiently(partial(self._provider.embedding, request))
        except LLMError as error:
            return error
        except Exception as error:  # one line, whatever is wrong with it, is not the batch
            log.exception("line %d failed in a way the contract does not know", job.number)
            return error

    async def _patiently(self, ask: Callable[[], Awaitable[T]]) -> T:
        return await patiently(ask, self._options.rate_limit_waits_s)

    def _record(self, job: Job, answer: Answer) -> bytes:
        if isinstance(answer, Exception):
            outcome: dict[str, Any] = failure(*failure_of(answer))
        else:
            outcome = success(answer)
        return write_record(job, self._known.digests[job.number - 1], self._digest, outcome)

    def _tally(self, job: Job, answer: Answer) -> None:
        if isinstance(answer, Exception):
            if not isinstance(answer, LineError):
                failed = failure_of(answer)
                self._n_alike = self._n_alike + 1 if failed == self._last_failure else 1
                self._last_failure = failed
            return
        self._last_failure, self._n_alike = None, 0
        if answer.usage is not None:
            self._tokens["prompt"] += answer.usage.prompt_tokens
        if isinstance(answer, ChatCompletionResponse):
            self._tokens["completion"] += answer.usage.completion_tokens if answer.usage else 0
            self._tokens["cached"] += answer.timings.cached_tokens if answer.timings else 0

    def _check_failures(self) -> None:
        limit = self._options.stop_after
        if limit and self._n_alike >= limit:
            assert self._last_failure is not None
            raise BatchStopped(self._n_alike, *self._last_failure)

    def _report(self) -> BatchReport:
        return BatchReport(
            n_lines=self._known.n_jobs,
            n_done=self._file.n_done,
            n_failed=self._file.n_failed,
            n_done_before=self._n_done_before,
            prompt_tokens=self._tokens["prompt"],
            completion_tokens=self._tokens["completion"],
            cached_tokens=self._tokens["cached"],
            elapsed_s=time.monotonic() - self._began_s,
        )


async def _in_thread(work: Callable[[], T]) -> T:
    """What ``work`` returns; a cancelled caller waits for its end, as files need."""
    task = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        if not task.cancelled() and task.exception() is not None:
            log.warning("the batch was cancelled, and %s", task.exception())
        raise

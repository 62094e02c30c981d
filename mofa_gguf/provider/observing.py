"""What a request leaves behind for whoever watches: a log event, and a span where one is wanted."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from mofa_gguf.contract import (
    ChatCompletionChunk,
    ChatCompletionRequest,
    EmbeddingRequest,
    EmbeddingResponse,
    FinishReason,
    LLMError,
    ResponseGatherer,
)
from mofa_gguf.engine.events import emit
from mofa_gguf.engine.requests.request import FinishEvent
from mofa_gguf.provider.telemetry import RequestSpan, request_span

logger = logging.getLogger(__name__)

CHAT, COMPLETION, EMBEDDINGS = "chat", "text_completion", "embeddings"


@dataclass
class Observed:
    """One request on its way; it tells here what becomes of it."""

    operation: str
    model: str
    span: RequestSpan | None
    request_id: str | None = None
    """Set once the request is taken in."""
    ends: list[FinishEvent] = field(default_factory=list)
    reasons: list[FinishReason] = field(default_factory=list)
    whole: bool = False
    """The last chunk is there, whether the caller fetches it or not."""
    n_embedded_tokens: int | None = None
    gathered: ResponseGatherer | None = None
    """The answer, where a span wants to have it."""
    started_s: float = field(default_factory=time.monotonic)

    def taken_in(self, request_id: str) -> None:
        """It was queued in the engine."""
        self.request_id = request_id

    def chunk(self, chunk: ChatCompletionChunk, end: FinishEvent | None, *, last: bool) -> None:
        """A piece of the answer is there; ``end`` with the last one of each choice."""
        if end is not None:
            self.ends.append(end)
            self.reasons += [c.finish_reason for c in chunk.choices if c.finish_reason is not None]
        self.whole = last
        if self.span is None:
            return
        if any(not choice.delta.is_empty() for choice in chunk.choices):
            self.span.first_token()
        if self.gathered is not None:
            self.gathered.add(chunk)

    def embedded(self, response: EmbeddingResponse) -> None:
        """The vectors are there."""
        self.n_embedded_tokens = response.usage.prompt_tokens
        if self.span is not None and response.data:
            self.span.vectors(len(response.data[0].embedding))

    @property
    def seconds(self) -> float:
        """How long it has taken until now."""
        return time.monotonic() - self.started_s


@contextmanager
def observed(
    operation: str,
    provider: str,
    model: str,
    request: ChatCompletionRequest | EmbeddingRequest,
    *,
    streams: bool = False,
) -> Iterator[Observed]:
    """Watch one request: how the block ends is how the request ended."""
    seen = Observed(operation, model, request_span(operation, provider, model, request, streams))
    if operation == CHAT and seen.span is not None and seen.span.keeps_content:
        seen.gathered = ResponseGatherer()
    try:
        yield seen
        _finished(seen)
    except Exception as error:  # an LLMError, or a bug
        _failed(seen, error)
        raise
    except (GeneratorExit, asyncio.CancelledError):
        # Who closes a stream behind its last chunk has had all of it.
        _finished(seen) if seen.whole else _cancelled(seen)
        raise
    except BaseException as error:
        if seen.span is not None:
            seen.span.failed(error)
        raise
    finally:
        if seen.span is not None:
            seen.span.end()


def _finished(seen: Observed) -> None:
    if seen.span is not None:
        if seen.ends:
            response = seen.gathered.response() if seen.gathered is not None else None
            seen.span.answered(seen.request_id or "", seen.ends, seen.reasons, response)
        else:
            seen.span.embedded(seen.n_embedded_tokens or 0)
    ends: Sequence[FinishEvent] = seen.ends
    emit(
        logger,
        "request.finished",
        model=seen.model,
        request=seen.request_id,
        operation=seen.operation,
        finish_reasons=[reason.value for reason in seen.reasons],
        n_prompt_tokens=ends[0].n_prompt_tokens if ends else seen.n_embedded_tokens,
        n_cached_tokens=max((end.n_cached_tokens for end in ends), default=0),
        n_generated_tokens=sum(end.n_generated_tokens for end in ends),
        queue_s=max((end.timings.queue_s for end in ends), default=None),
        prefill_s=max((end.timings.prefill_s for end in ends), default=None),
        decode_s=max((end.timings.decode_s for end in ends), default=None),
        seconds=seen.seconds,
    )


def _failed(seen: Observed, error: Exception) -> None:
    if seen.span is not None:
        seen.span.failed(error)
    emit(
        logger,
        "request.refused" if seen.request_id is None else "request.failed",
        model=seen.model,
        request=seen.request_id,
        operation=seen.operation,
        error=type(error).__name__,
        reason=error.message if isinstance(error, LLMError) else str(error),
        seconds=seen.seconds,
    )


def _cancelled(seen: Observed) -> None:
    if seen.span is not None:
        seen.span.cancelled()
    emit(
        logger,
        "request.cancelled",
        model=seen.model,
        request=seen.request_id,
        operation=seen.operation,
        seconds=seen.seconds,
    )

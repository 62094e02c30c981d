"""Spans and metrics after OpenTelemetry's conventions for generative AI.

https://github.com/open-telemetry/semantic-conventions-genai. Where the package
``opentelemetry-api`` is not installed nothing is recorded and nothing of this costs anything; where
it is and no SDK is set up, its own no-op classes see to that. What was asked and answered is
recorded only if the conventions' variable OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT asks
for it ("true", "span_only" or "span_and_event").
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from mofa_gguf.contract import (
    ChatCompletionRequest,
    ChatCompletionResponse,
    EmbeddingRequest,
    FinishReason,
)
from mofa_gguf.engine.requests.request import FinishEvent
from mofa_gguf.provider.content import input_attributes, output_attributes

if TYPE_CHECKING:
    from opentelemetry.metrics import Histogram
    from opentelemetry.trace import Span

CAPTURE_VARIABLE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
_CAPTURING = frozenset({"true", "1", "span_only", "span_and_event"})
_SCOPE = "mofa_gguf"

# Attributes taken from a request's fields and extra keys, as they are.
_PARAMETERS = {
    "temperature": "gen_ai.request.temperature",
    "top_p": "gen_ai.request.top_p",
    "top_k": "gen_ai.request.top_k",
    "max_tokens": "gen_ai.request.max_tokens",
    "frequency_penalty": "gen_ai.request.frequency_penalty",
    "presence_penalty": "gen_ai.request.presence_penalty",
    "stop": "gen_ai.request.stop_sequences",
    "seed": "gen_ai.request.seed",
    "n": "gen_ai.request.choice.count",
    "session_id": "gen_ai.conversation.id",
}
# Name, unit, description and bucket boundaries, as the conventions have them.
_SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
_TOKENS = tuple(4.0**power for power in range(14))
_FIRST_TOKEN = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0
)  # fmt: skip
_PER_TOKEN = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
DURATION = "gen_ai.client.operation.duration"
TOKEN_USAGE = "gen_ai.client.token.usage"  # noqa: S105 - no secret
FIRST_CHUNK = "gen_ai.client.operation.time_to_first_chunk"
FIRST_TOKEN = "gen_ai.server.time_to_first_token"  # noqa: S105
PER_TOKEN = "gen_ai.server.time_per_output_token"  # noqa: S105
_METRICS: dict[str, tuple[str, str, Sequence[float]]] = {
    DURATION: ("s", "Duration of an operation", _SECONDS),
    TOKEN_USAGE: ("{token}", "Input and output tokens of an operation", _TOKENS),
    FIRST_CHUNK: ("s", "From the request to the first piece of a streamed answer", _SECONDS),
    FIRST_TOKEN: ("s", "Until the first token was computed, waiting included", _FIRST_TOKEN),
    PER_TOKEN: ("s", "Mean time of a token after the first", _PER_TOKEN),
}


@functools.lru_cache(maxsize=1)
def installed() -> bool:
    """Whether the package opentelemetry-api is there."""
    try:
        return find_spec("opentelemetry.trace") is not None
    except ModuleNotFoundError:
        return False


@functools.lru_cache(maxsize=1)
def _metrics() -> dict[str, Histogram]:
    from opentelemetry import metrics

    from mofa_gguf import __version__

    meter = metrics.get_meter(_SCOPE, __version__)
    return {
        name: meter.create_histogram(
            name, unit, description, explicit_bucket_boundaries_advisory=bounds
        )
        for name, (unit, description, bounds) in _METRICS.items()
    }


def request_span(
    operation: str,
    provider: str,
    model: str,
    request: ChatCompletionRequest | EmbeddingRequest,
    streams: bool,
) -> RequestSpan | None:
    """A span that begins now, a child of the caller's; None without OpenTelemetry."""
    if not installed():
        return None
    from opentelemetry import trace

    from mofa_gguf import __version__

    common = {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": provider,
        "gen_ai.request.model": model,
    }
    tracer = trace.get_tracer(_SCOPE, __version__)
    # INTERNAL: the model runs in this process.
    span = tracer.start_span(
        f"{operation} {model}",
        kind=trace.SpanKind.INTERNAL,
        attributes={**common, **_request_attributes(request, streams)},
    )
    keeps_content = span.is_recording() and captures_content()
    if keeps_content and isinstance(request, ChatCompletionRequest):
        span.set_attributes(input_attributes(request))
    return RequestSpan(span, common, time.monotonic(), streams, keeps_content)


def captures_content() -> bool:
    """Whether prompts and answers may be recorded."""
    return os.environ.get(CAPTURE_VARIABLE, "").strip().lower() in _CAPTURING


@dataclass
class RequestSpan:
    """A span and the metrics of one request."""

    span: Span
    common: Mapping[str, str]
    started_s: float
    streams: bool
    keeps_content: bool
    error_type: str | None = None
    first_token_after_s: float | None = None

    def first_token(self) -> None:
        """The first piece of the answer is there."""
        if self.first_token_after_s is None:
            self.first_token_after_s = time.monotonic() - self.started_s
            self.span.add_event("gen_ai.first_token")

    def answered(
        self,
        request_id: str,
        ends: Sequence[FinishEvent],
        reasons: Sequence[FinishReason],
        response: ChatCompletionResponse | None,
    ) -> None:
        """The whole answer is there; ``response`` where content is kept."""
        n_input = ends[0].n_prompt_tokens
        n_output = sum(end.n_generated_tokens for end in ends)
        attributes: dict[str, Any] = {
            "gen_ai.response.id": request_id,
            "gen_ai.response.model": self.common["gen_ai.request.model"],
            "gen_ai.response.finish_reasons": [reason.value for reason in reasons],
            "gen_ai.usage.input_tokens": n_input,
            "gen_ai.usage.output_tokens": n_output,
            "gen_ai.usage.cache_read.input_tokens": max(end.n_cached_tokens for end in ends),
        }
        if self.streams and self.first_token_after_s is not None:
            attributes["gen_ai.response.time_to_first_chunk"] = self.first_token_after_s
            self._record(FIRST_CHUNK, self.first_token_after_s)
        self.span.set_attributes(attributes)
        if response is not None:
            self.span.set_attributes(output_attributes(response))
        self._record_tokens(n_input, n_output)
        for end in ends:
            self._record(FIRST_TOKEN, end.timings.queue_s + end.timings.prefill_s)
            if end.n_generated_tokens > 1:
                self._record(PER_TOKEN, end.timings.decode_s / (end.n_generated_tokens - 1))

    def vectors(self, n_dimensions: int) -> None:
        """The vectors are there and have this length."""
        self.span.set_attribute("gen_ai.embeddings.dimension.count", n_dimensions)

    def embedded(self, n_tokens: int) -> None:
        """So many tokens were embedded."""
        self.span.set_attribute("gen_ai.usage.input_tokens", n_tokens)
        self._record_tokens(n_tokens, None)

    def failed(self, error: BaseException) -> None:
        """The request ended with an error."""
        from opentelemetry.trace import Status, StatusCode

        self.error_type = type(error).__name__
        self.span.set_attribute("error.type", self.error_type)
        self.span.set_status(Status(StatusCode.ERROR, str(error)))

    def cancelled(self) -> None:
        """Nobody wanted the rest: no error, but no whole answer either."""
        self.span.add_event("gen_ai.cancelled")

    def end(self) -> None:
        """The request is over."""
        more = {} if self.error_type is None else {"error.type": self.error_type}
        self._record(DURATION, time.monotonic() - self.started_s, more)
        self.span.end()

    def _record_tokens(self, n_input: int, n_output: int | None) -> None:
        self._record(TOKEN_USAGE, n_input, {"gen_ai.token.type": "input"})
        if n_output is not None:
            self._record(TOKEN_USAGE, n_output, {"gen_ai.token.type": "output"})

    def _record(self, name: str, value: float, more: Mapping[str, str] | None = None) -> None:
        _metrics()[name].record(value, {**self.common, **(more or {})})


def _request_attributes(
    request: ChatCompletionRequest | EmbeddingRequest, streams: bool
) -> dict[str, Any]:
    if isinstance(request, EmbeddingRequest):
        return {"gen_ai.request.encoding_formats": [request.encoding_format or "float"]}
    given = {
        **request.extra,
        **{name: getattr(request, name) for name in _PARAMETERS if hasattr(request, name)},
    }
    attributes = {
        key: given[name]
        for name, key in _PARAMETERS.items()
        if isinstance(given.get(name), int | float | str | list) and given[name] not in ([], "")
    }
    if attributes.get("gen_ai.request.choice.count") == 1:
        del attributes["gen_ai.request.choice.count"]
    wanted = request.response_format
    is_json = wanted is not None and wanted.format_type != "text"
    attributes["gen_ai.output.type"] = "json" if is_json else "text"
    if streams:
        attributes["gen_ai.request.stream"] = True
    return attributes

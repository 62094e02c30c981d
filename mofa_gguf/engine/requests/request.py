"""What is asked of the engine, and what it answers: plain values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from mofa_gguf.engine.options import Speculation
from mofa_gguf.engine.requests.sampling import SamplingOptions

if TYPE_CHECKING:
    from mofa_gguf.engine.structure.constraint import TokenConstraint

FinishReason = Literal["stop", "length", "cancelled"]


@dataclass(frozen=True)
class GenerationRequest:
    """A prompt and how to go on from it."""

    tokens: Sequence[int]
    sampling: SamplingOptions = field(default_factory=SamplingOptions)
    max_tokens: int | None = None
    """None: until the model ends its answer or the context is full."""
    min_tokens: int = 0
    """The model cannot end its answer before this many tokens."""
    ignore_eos: bool = False
    """Never end by itself (benchmarks)."""
    stop: Sequence[str] = ()
    top_logprobs: int | None = None
    """How many alternatives to report with each token; 0 reports the chosen one, None nothing."""
    constraint: Callable[[], TokenConstraint] | None = None
    """Makes this request's constraint; called on the engine's thread."""
    visible_control: frozenset[str] = frozenset()
    """Control tokens whose text the reader wants to see (tool-call and reasoning marks)."""
    priority: int = 0
    """Higher goes first."""
    deadline_s: float | None = None
    """Seconds from submission after which the request is given up."""
    speculation: Speculation | None = None
    """In place of the engine's own setting."""


@dataclass(frozen=True)
class TokenLogprob:
    """A token and the natural logarithm of its probability before any sampling parameter."""

    token: int
    data: bytes
    logprob: float


@dataclass(frozen=True)
class ChosenLogprob(TokenLogprob):
    """The chosen token with the most likely ones, best first."""

    top: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True)
class TextEvent:
    """Text that has become certain, and the tokens computed since the last event."""

    text: str
    tokens: tuple[int, ...]
    logprobs: tuple[ChosenLogprob, ...] = ()


@dataclass(frozen=True)
class Timings:
    """Where a request's time went, in seconds."""

    queue_s: float
    prefill_s: float
    decode_s: float


@dataclass(frozen=True)
class FinishEvent:
    """The last event of every answer that did not fail."""

    reason: FinishReason
    n_prompt_tokens: int
    n_cached_tokens: int
    """Prompt tokens whose KV cells were there already."""
    n_generated_tokens: int
    timings: Timings
    seed: int
    stop_string: str | None = None
    n_drafted_tokens: int = 0
    """Tokens that were guessed ahead and computed with the answer's own."""
    n_accepted_tokens: int = 0
    """Those of them that are in the answer: each saved a step."""


Event = TextEvent | FinishEvent

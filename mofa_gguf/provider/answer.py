"""From the engine's events to the contract's chunks."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from mofa_gguf.contract import (
    ChatCompletionChunk,
    ChatMessage,
    ChunkChoice,
    ChunkDelta,
    FinishReason,
    Role,
    Timings,
    Usage,
)
from mofa_gguf.engine.requests.generation import Generation
from mofa_gguf.engine.requests.request import ChosenLogprob, FinishEvent, TokenLogprob
from mofa_gguf.provider.completing import AnswerParser


@dataclass
class ChunkMaker:
    """Makes the chunks of one response; they share id, time and model."""

    model: str
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))

    def chunk(self, choice: ChunkChoice, ends: Sequence[FinishEvent] = ()) -> ChatCompletionChunk:
        """A chunk about one choice; the last one is given how all choices ended."""
        return ChatCompletionChunk(
            id=self.id,
            created=self.created,
            model=self.model,
            choices=[choice],
            usage=_usage(ends) if ends else None,
            timings=_timings(ends) if ends else None,
        )


def _usage(ends: Sequence[FinishEvent]) -> Usage:
    """The prompt once, the answers all."""
    return Usage.new(ends[0].n_prompt_tokens, sum(end.n_generated_tokens for end in ends))


def _timings(ends: Sequence[FinishEvent]) -> Timings:
    return Timings(
        queue_s=max(end.timings.queue_s for end in ends),
        prefill_s=max(end.timings.prefill_s for end in ends),
        decode_s=max(end.timings.decode_s for end in ends),
        cached_tokens=max(end.n_cached_tokens for end in ends),
        drafted_tokens=sum(end.n_drafted_tokens for end in ends),
        accepted_tokens=sum(end.n_accepted_tokens for end in ends),
    )


async def choice_chunks(
    generation: Generation, parser: AnswerParser, index: int
) -> AsyncGenerator[tuple[ChunkChoice, FinishEvent | None], None]:
    """The chunks of one answer in order; the finishing one comes with the engine's last event.

    Closing this generator cancels the request.
    """
    waiting: list[ChosenLogprob] = []
    yield ChunkChoice(index=index, delta=ChunkDelta(role=Role.ASSISTANT)), None
    async with aclosing(generation.events()) as events:
        async for event in events:
            if isinstance(event, FinishEvent):
                message = parser.finish()
                for delta in parser.final_deltas:
                    yield _choice(index, delta, waiting), None
                    waiting = []
                reason = _finish_reason(event, message)
                yield _choice(index, ChunkDelta(), waiting, reason), event
                return
            waiting += event.logprobs
            for delta in parser.feed(event.text):
                yield _choice(index, delta, waiting), None
                waiting = []


def _finish_reason(event: FinishEvent, message: ChatMessage) -> FinishReason:
    if event.reason == "length":
        return FinishReason.LENGTH
    return FinishReason.TOOL_CALLS if message.tool_calls else FinishReason.STOP


def _choice(
    index: int,
    delta: ChunkDelta,
    logprobs: Sequence[ChosenLogprob],
    reason: FinishReason | None = None,
) -> ChunkChoice:
    shown = {"content": [_logprob(each) for each in logprobs]} if logprobs else None
    return ChunkChoice(index=index, delta=delta, finish_reason=reason, logprobs=shown)


def _logprob(chosen: ChosenLogprob) -> dict[str, Any]:
    """OpenAI's shape of a token's log-probability."""
    return {**_token(chosen), "top_logprobs": [_token(each) for each in chosen.top]}


def _token(token: TokenLogprob) -> dict[str, Any]:
    return {
        "token": token.data.decode("utf-8", errors="replace"),
        "logprob": token.logprob,
        "bytes": list(token.data),
    }

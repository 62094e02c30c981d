"""What a stream owes MoFA's readers, and what a whole stream amounts to.

MoFA's bridges (``stream_bridge`` and the adapters in mofa-foundation) lose what comes in the wrong
place, so a stream keeps to these rules:

1. a choice's text never shares a chunk with its ``finish_reason``: it would be dropped;
2. a tool call's first delta has its id and name and empty arguments (they would be dropped), its
   later deltas have no id (they would start another call);
3. the usage is on the last chunk only, and every choice that began has finished by then;
4. a choice's role is on its first chunk only, and nothing follows its ``finish_reason``.

``split_chunk`` turns a chunk that breaks the first two into several that do not;
``stream_violations`` names what is wrong with a stream, for tests; ``gather`` makes the response
that ``chat`` would have given.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable
from dataclasses import dataclass, field
from typing import Any

from mofa_gguf.contract.chunks import (
    ChatCompletionChunk,
    ChunkChoice,
    ChunkDelta,
    ToolCallDelta,
)
from mofa_gguf.contract.errors import Other
from mofa_gguf.contract.messages import ChatMessage, Role
from mofa_gguf.contract.responses import (
    ChatCompletionResponse,
    Choice,
    FinishReason,
    Timings,
    Usage,
)
from mofa_gguf.contract.tools import FunctionCall, ToolCall


def split_chunk(chunk: ChatCompletionChunk) -> list[ChatCompletionChunk]:
    """The same news as ``chunk`` in chunks that obey rules 1 and 2, in order.

    A chunk that obeys them comes back alone and unchanged. The usage stays on the last piece.
    """
    if not any(_needs_split(choice) for choice in chunk.choices):
        return [chunk]
    steps: list[list[ChunkChoice]] = []
    for choice in chunk.choices:
        for n, piece in enumerate(_split_choice(choice)):
            if n == len(steps):
                steps.append([])
            steps[n].append(piece)
    pieces = [
        chunk.model_copy(update={"choices": step, "usage": None, "timings": None}) for step in steps
    ]
    pieces[-1].usage, pieces[-1].timings = chunk.usage, chunk.timings
    return pieces


def stream_violations(chunks: Iterable[ChatCompletionChunk]) -> list[str]:
    """Every breach of the rules above in a whole stream, one sentence each; empty when sound."""
    stream = list(chunks)
    if not stream:
        return ["the stream has no chunk at all"]
    problems: list[str] = []
    seen: dict[int, _ChoiceSoFar] = {}
    for n, chunk in enumerate(stream):
        if chunk.usage is not None and chunk is not stream[-1]:
            problems.append(f"chunk {n} has the usage and is not the last")
        for choice in chunk.choices:
            so_far = seen.setdefault(choice.index, _ChoiceSoFar())
            problems += [f"chunk {n}: {text}" for text in so_far.check(choice)]
    problems += [
        f"choice {index} never finished"
        for index, so_far in seen.items()
        if so_far.finish_reason is None
    ]
    return problems


async def gather(stream: AsyncIterable[ChatCompletionChunk]) -> ChatCompletionResponse:
    """The response that a whole stream amounts to.

    Raises:
        Other: the stream ended without a chunk.
        LLMError: whatever the stream raised.
    """
    gatherer = ResponseGatherer()
    async for chunk in stream:
        gatherer.add(chunk)
    return gatherer.response()


class ResponseGatherer:
    """Collects chunks, one after the other, into a response."""

    def __init__(self) -> None:
        self._first: ChatCompletionChunk | None = None
        self._usage: Usage | None = None
        self._timings: Timings | None = None
        self._choices: dict[int, _ChoiceSoFar] = {}

    def add(self, chunk: ChatCompletionChunk) -> None:
        """Take in the next chunk."""
        self._first = self._first or chunk
        self._usage = chunk.usage or self._usage
        self._timings = chunk.timings or self._timings
        for choice in chunk.choices:
            self._choices.setdefault(choice.index, _ChoiceSoFar()).add(choice)

    def response(self) -> ChatCompletionResponse:
        """The response so far.

        Raises:
            Other: no chunk was added.
        """
        if self._first is None:
            raise Other("the stream ended without a chunk")
        return ChatCompletionResponse(
            id=self._first.id,
            created=self._first.created,
            model=self._first.model,
            choices=[so_far.choice(index) for index, so_far in sorted(self._choices.items())],
            usage=self._usage,
            timings=self._timings,
        )


@dataclass
class _CallSoFar:
    id: str = ""
    call_type: str = "function"
    name: str = ""
    arguments: str = ""

    def add(self, delta: ToolCallDelta) -> None:
        self.id = delta.id or self.id
        self.call_type = delta.call_type or self.call_type
        if delta.function is not None:
            self.name = delta.function.name or self.name
            self.arguments += delta.function.arguments or ""

    def call(self) -> ToolCall:
        function = FunctionCall(name=self.name, arguments=self.arguments)
        return ToolCall(id=self.id, call_type=self.call_type, function=function)


@dataclass
class _ChoiceSoFar:
    """What a stream has said of one choice."""

    role: Role | None = None
    text: str | None = None
    reasoning: str | None = None
    calls: dict[int, _CallSoFar] = field(default_factory=dict)
    logprobs: list[Any] = field(default_factory=list)
    finish_reason: FinishReason | None = None

    def add(self, choice: ChunkChoice) -> None:
        delta = choice.delta
        self.role = self.role or delta.role
        if delta.content is not None:
            self.text = (self.text or "") + delta.content
        if delta.reasoning_content is not None:
            self.reasoning = (self.reasoning or "") + delta.reasoning_content
        for call in delta.tool_calls or ():
            self.calls.setdefault(call.index, _CallSoFar()).add(call)
        if isinstance(choice.logprobs, dict):
            self.logprobs += choice.logprobs.get("content") or []
        self.finish_reason = choice.finish_reason or self.finish_reason

    def choice(self, index: int) -> Choice:
        calls = [call.call() for _, call in sorted(self.calls.items())]
        message = ChatMessage(
            role=self.role or Role.ASSISTANT,
            # As MoFA's assistant_with_tool_calls: calls without text have no content at all.
            content=self.text or None if calls else self.text or "",
            tool_calls=calls or None,
            reasoning_content=self.reasoning,
        )
        return Choice(
            index=index,
            message=message,
            finish_reason=self.finish_reason,
            logprobs={"content": self.logprobs} if self.logprobs else None,
        )

    def check(self, choice: ChunkChoice) -> list[str]:
        """What this chunk's choice breaks, given what came before; then remember it."""
        where, delta = f"choice {choice.index}", choice.delta
        problems = []
        if self.finish_reason is not None:
            problems.append(f"{where} goes on after its finish_reason")
        if choice.finish_reason is not None and not delta.is_empty():
            problems.append(f"{where} has a delta beside its finish_reason, which readers drop")
        if self.role is not None and delta.role is not None:
            problems.append(f"{where} repeats its role")
        for call in delta.tool_calls or ():
            problems += [f"{where}: {text}" for text in self._check_call(call)]
        self.add(choice)
        return problems

    def _check_call(self, delta: ToolCallDelta) -> list[str]:
        call, function = f"tool call {delta.index}", delta.function
        if delta.index in self.calls:
            return [f"{call} repeats its id, which starts another call"] if delta.id else []
        problems = []
        if not delta.id or function is None or not function.name:
            problems.append(f"{call} starts without id and name")
        if function is not None and function.arguments:
            problems.append(f"{call} starts with arguments, which readers drop")
        return problems


def _needs_split(choice: ChunkChoice) -> bool:
    finishes_with_news = choice.finish_reason is not None and not choice.delta.is_empty()
    return finishes_with_news or any(_has_early_arguments(c) for c in choice.delta.tool_calls or ())


def _has_early_arguments(call: ToolCallDelta) -> bool:
    return bool(call.id and call.function is not None and call.function.arguments)


def _split_choice(choice: ChunkChoice) -> list[ChunkChoice]:
    if not _needs_split(choice):
        return [choice]
    starts: list[ToolCallDelta] = []
    fragments: list[ToolCallDelta] = []
    for call in choice.delta.tool_calls or ():
        if _has_early_arguments(call) and call.function is not None:
            empty = call.function.model_copy(update={"arguments": ""})
            starts.append(call.model_copy(update={"function": empty}))
            fragments.append(ToolCallDelta.fragment(call.index, call.function.arguments or ""))
        else:
            starts.append(call)
    delta = choice.delta.model_copy(update={"tool_calls": starts or None})
    pieces = [choice.model_copy(update={"delta": delta, "finish_reason": None})]
    if fragments:
        pieces.append(ChunkChoice(index=choice.index, delta=ChunkDelta(tool_calls=fragments)))
    if choice.finish_reason is not None:
        pieces.append(ChunkChoice(index=choice.index, finish_reason=choice.finish_reason))
    return pieces

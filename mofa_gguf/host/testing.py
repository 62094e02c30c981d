"""A provider without a model, for tests of whatever uses one.

``ScriptedProvider`` gives prepared answers and streams them the way a good provider does, so what
works with it works with MoFA's readers (see ``contract.streaming``).
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import AsyncGenerator, Iterable, Iterator

import anyio

from mofa_gguf.contract.chunks import (
    ChatCompletionChunk,
    ChunkChoice,
    ChunkDelta,
    ToolCallDelta,
)
from mofa_gguf.contract.embeddings import (
    EmbeddingData,
    EmbeddingRequest,
    EmbeddingResponse,
    EmbeddingUsage,
)
from mofa_gguf.contract.errors import LLMError, ModelNotFound, Other
from mofa_gguf.contract.messages import ChatMessage, Role
from mofa_gguf.contract.models import ModelCapabilities, ModelInfo
from mofa_gguf.contract.provider import LLMProvider
from mofa_gguf.contract.requests import ChatCompletionRequest
from mofa_gguf.contract.responses import ChatCompletionResponse, FinishReason, Usage
from mofa_gguf.contract.streaming import gather

Reply = str | ChatMessage | LLMError
"""What the provider answers: text, a message, or an error to raise."""

_N_DIMENSIONS = 8


class ScriptedProvider(LLMProvider):
    """Answers with prepared replies in turn; without any it repeats the last user message.

    A "token" is a word here. Vectors depend on the text alone and have length 1.

    Args:
        replies: one for each request; an ``LLMError`` is raised instead of an answer.
        model: the name of its one model.
        chunk_chars: how many characters a streamed piece has.
        delay_s: how long it waits before each piece.

    Attributes:
        requests: every chat request received.
        n_open_streams: streams begun and neither finished nor closed.
        n_cancelled: streams closed or cancelled before their end.
        closed: whether ``close`` was called.
    """

    def __init__(
        self,
        replies: Iterable[Reply] | None = None,
        *,
        model: str = "scripted",
        chunk_chars: int = 4,
        delay_s: float = 0.0,
    ) -> None:
        self._replies: Iterator[Reply] | None = None if replies is None else iter(replies)
        self._model = model
        self._chunk_chars = chunk_chars
        self._delay_s = delay_s
        self._ids = itertools.count(1)
        self.requests: list[ChatCompletionRequest] = []
        self.n_open_streams = 0
        self.n_cancelled = 0
        self.closed = False

    def name(self) -> str:
        """The name "scripted"."""
        return "scripted"

    def default_model(self) -> str:
        """Its one model."""
        return self._model

    def supported_models(self) -> list[str]:
        """Its one model."""
        return [self._model]

    def supports_embedding(self) -> bool:
        """It does."""
        return True

    async def chat(self, request: ChatCompletionRequest) -> ChatCompletionResponse:
        """The stream's chunks gathered up."""
        return await gather(self.chat_stream(request))

    async def chat_stream(
        self, request: ChatCompletionRequest
    ) -> AsyncGenerator[ChatCompletionChunk, None]:
        """Stream the next reply.

        Raises:
            ModelNotFound: the request names another model.
            Other: the provider is closed, or out of replies.
            LLMError: the reply, if it is one.
        """
        self._check(request)
        self.requests.append(request)
        message = self._next_reply(request)
        self.n_open_streams += 1
        finished = False
        try:
            for chunk in self._chunks(request, message):
                await anyio.sleep(self._delay_s)
                yield chunk
            finished = True
        finally:
            self.n_open_streams -= 1
            self.n_cancelled += not finished

    async def embedding(self, request: EmbeddingRequest) -> EmbeddingResponse:
        """Vectors of 8 numbers made from a digest of each text."""
        texts = request.texts()
        n_tokens = sum(_count_tokens(text) for text in texts)
        return EmbeddingResponse(
            model=request.model or self._model,
            data=[EmbeddingData(index=n, embedding=_vector(text)) for n, text in enumerate(texts)],
            usage=EmbeddingUsage(prompt_tokens=n_tokens, total_tokens=n_tokens),
        )

    async def health_check(self) -> bool:
        """Whether it is open."""
        return not self.closed

    async def get_model_info(self, model: str) -> ModelInfo:
        """Its one model can stream and call tools."""
        capabilities = ModelCapabilities(streaming=True, tools=True)
        return ModelInfo(id=self._model, name=self._model, capabilities=capabilities)

    async def close(self) -> None:
        """Refuse every later request."""
        self.closed = True

    def _check(self, request: ChatCompletionRequest) -> None:
        if self.closed:
            raise Other("the provider is closed")
        if request.model and not self.supports_model(request.model):
            raise ModelNotFound(
                f"there is no model {request.model!r}; there is {self._model!r}",
                model=request.model,
                known=[self._model],
            )

    def _next_reply(self, request: ChatCompletionRequest) -> ChatMessage:
        if self._replies is None:
            said = (m.text_content() for m in reversed(request.messages) if m.role is Role.USER)
            return ChatMessage.assistant(next(said, None) or "")
        reply = next(self._replies, None)
        if reply is None:
            raise Other(f"the script has no reply to request {len(self.requests)}")
        if isinstance(reply, LLMError):
            raise reply
        return ChatMessage.assistant(reply) if isinstance(reply, str) else reply

    def _chunks(
        self, request: ChatCompletionRequest, message: ChatMessage
    ) -> Iterator[ChatCompletionChunk]:
        chunk = ChatCompletionChunk(
            id=f"scripted-{next(self._ids)}",
            created=0,
            model=request.model or self._model,
            choices=[],
        )
        for delta in _deltas(message, self._chunk_chars):
            yield chunk.model_copy(update={"choices": [ChunkChoice(delta=delta)]})
        reason = FinishReason.TOOL_CALLS if message.tool_calls else FinishReason.STOP
        yield chunk.model_copy(
            update={
                "choices": [ChunkChoice(finish_reason=reason)],
                "usage": Usage.new(
                    sum(_count_tokens(m.text_content() or "") for m in request.messages),
                    _count_tokens(message.text_content() or ""),
                ),
            }
        )


def _deltas(message: ChatMessage, chunk_chars: int) -> Iterator[ChunkDelta]:
    yield ChunkDelta(role=Role.ASSISTANT)
    for piece in _pieces(message.reasoning_content or "", chunk_chars):
        yield ChunkDelta(reasoning_content=piece)
    for piece in _pieces(message.text_content() or "", chunk_chars):
        yield ChunkDelta(content=piece)
    for index, call in enumerate(message.tool_calls or ()):
        yield ChunkDelta(tool_calls=[ToolCallDelta.start(index, call.id, call.function.name)])
        for piece in _pieces(call.function.arguments, chunk_chars):
            yield ChunkDelta(tool_calls=[ToolCallDelta.fragment(index, piece)])


def _pieces(text: str, n_chars: int) -> Iterator[str]:
    return (text[start : start + n_chars] for start in range(0, len(text), n_chars))


def _count_tokens(text: str) -> int:
    return len(text.split())


def _vector(text: str) -> list[float]:
    digest = hashlib.sha256(text.encode()).digest()[:_N_DIMENSIONS]
    numbers = [byte - 127.5 for byte in digest]
    length = math.sqrt(sum(number * number for number in numbers))
    return [number / length for number in numbers]

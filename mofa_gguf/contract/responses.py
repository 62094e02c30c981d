"""A whole answer to a chat request."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any

from mofa_gguf.contract.base import U32, U64, ContractModel
from mofa_gguf.contract.messages import ChatMessage
from mofa_gguf.contract.tools import ToolCall

if TYPE_CHECKING:
    from mofa_gguf.contract.chunks import ChatCompletionChunk


class FinishReason(str, Enum):
    """Why a generation ended."""

    STOP = "stop"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"
    CONTENT_FILTER = "content_filter"

    def __str__(self) -> str:
        return self.value


class Usage(ContractModel):
    """How many tokens a request took."""

    prompt_tokens: U32
    completion_tokens: U32
    total_tokens: U32

    @classmethod
    def new(cls, prompt_tokens: int, completion_tokens: int) -> Usage:
        """The usage whose total is the sum of its two parts."""
        return cls(
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
            total_tokens=prompt_tokens + completion_tokens,
        )


class Timings(ContractModel):
    """Where a request's time went: an addition of the Python side, for local models.

    Of several choices, the longest times and the most cached tokens.
    """

    queue_s: float
    prefill_s: float
    decode_s: float
    cached_tokens: U32 = 0
    """Prompt tokens that were not computed, because an earlier request had them in common."""
    drafted_tokens: U32 = 0
    """Tokens guessed ahead, of all choices."""
    accepted_tokens: U32 = 0
    """Those of them that became part of an answer: each saved a step."""


class Choice(ContractModel):
    """One of the answers of a response."""

    index: U32 = 0
    message: ChatMessage
    finish_reason: FinishReason | None = None
    logprobs: Any = None


class ChatCompletionResponse(ContractModel):
    """What a provider's ``chat`` returns; ``created`` is in seconds since 1970."""

    id: str
    object: str = "chat.completion"
    created: U64
    model: str
    choices: list[Choice]
    usage: Usage | None = None
    system_fingerprint: str | None = None
    timings: Timings | None = None

    def content(self) -> str | None:
        """The first choice's text, None when it has none."""
        return self.choices[0].message.text_content() if self.choices else None

    def tool_calls(self) -> list[ToolCall] | None:
        """The first choice's tool calls, None when it has none."""
        return self.choices[0].message.tool_calls if self.choices else None

    def has_tool_calls(self) -> bool:
        """Whether the first choice calls a tool."""
        return bool(self.tool_calls())

    def finish_reason(self) -> FinishReason | None:
        """Why the first choice ended."""
        return self.choices[0].finish_reason if self.choices else None


class LLMResponseMetadata(ContractModel):
    """What event handlers are told of a response; counts are 0 where the response has no usage."""

    id: str
    model: str
    prompt_tokens: U32
    completion_tokens: U32
    total_tokens: U32

    @classmethod
    def of(cls, response: ChatCompletionResponse | ChatCompletionChunk) -> LLMResponseMetadata:
        """The metadata of a response or of a stream's last chunk."""
        usage = response.usage or Usage.new(0, 0)
        return cls(
            id=response.id,
            model=response.model,
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
            total_tokens=usage.total_tokens,
        )

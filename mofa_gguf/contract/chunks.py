"""The pieces of a streamed answer.

MoFA's stream bridges put obligations on whoever makes a stream: the chunk with a ``finish_reason``
has no content, a tool call's first delta has its id and name and empty arguments, its later deltas
have no id, and only the last chunk has the usage. ``contract.streaming`` has them in full.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from mofa_gguf.contract.base import U32, U64, ContractModel
from mofa_gguf.contract.messages import Role
from mofa_gguf.contract.responses import FinishReason, Timings, Usage


class FunctionCallDelta(ContractModel):
    """A piece of a function call: its name, or the next fragment of its arguments."""

    name: str | None = None
    arguments: str | None = None


class ToolCallDelta(ContractModel):
    """A piece of the tool call number ``index``; ``call_type`` is the JSON key ``type``."""

    index: U32
    id: str | None = None
    call_type: str | None = Field(default=None, validation_alias="type", serialization_alias="type")
    function: FunctionCallDelta | None = None

    @classmethod
    def start(cls, index: int, id: str, name: str) -> ToolCallDelta:
        """A call's first delta; its arguments are empty, since MoFA's readers drop them."""
        function = FunctionCallDelta(name=name, arguments="")
        return cls(index=index, id=id, call_type="function", function=function)

    @classmethod
    def fragment(cls, index: int, arguments: str) -> ToolCallDelta:
        """A later delta of a call: the next piece of its arguments."""
        return cls(index=index, function=FunctionCallDelta(arguments=arguments))


class ChunkDelta(ContractModel):
    """What a chunk adds to a choice.

    ``role`` comes with a choice's first chunk only. ``reasoning_content`` is an addition of the
    Python side; MoFA's Rust types skip it.
    """

    role: Role | None = None
    content: str | None = None
    tool_calls: list[ToolCallDelta] | None = None
    reasoning_content: str | None = None

    def is_empty(self) -> bool:
        """Whether nothing of the answer is lost with this delta (a role alone is nothing)."""
        return not (self.content or self.tool_calls or self.reasoning_content)


class ChunkChoice(ContractModel):
    """One choice's part of a chunk.

    ``logprobs`` is an addition of the Python side, in the shape of ``Choice.logprobs``; MoFA's Rust
    types skip it.
    """

    index: U32 = 0
    delta: ChunkDelta = Field(default_factory=ChunkDelta)
    finish_reason: FinishReason | None = None
    logprobs: Any = None


class ChatCompletionChunk(ContractModel):
    """One piece of a streamed answer; ``created`` is in seconds since 1970.

    ``timings`` come with the usage; MoFA's Rust types skip them.
    """

    id: str
    object: str = "chat.completion.chunk"
    created: U64
    model: str
    choices: list[ChunkChoice]
    usage: Usage | None = None
    timings: Timings | None = None

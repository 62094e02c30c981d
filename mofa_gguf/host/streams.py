"""Reading streams that may have to be begun again elsewhere."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from mofa_gguf.contract.chunks import ChatCompletionChunk
from mofa_gguf.host.jobs import close_stream


@asynccontextmanager
async def closing(stream: AsyncIterator[Any]) -> AsyncGenerator[AsyncIterator[Any], None]:
    """``contextlib.aclosing`` for iterators that need not be generators."""
    try:
        yield stream
    finally:
        await close_stream(stream)


async def until_news(stream: AsyncIterator[ChatCompletionChunk]) -> list[ChatCompletionChunk]:
    """The first chunks of a stream, to the first that says something of the answer.

    Until that one, nothing is lost if the stream fails and another takes its place.
    """
    chunks = []
    async for chunk in stream:
        chunks.append(chunk)
        if any(c.finish_reason is not None or not c.delta.is_empty() for c in chunk.choices):
            break
    return chunks

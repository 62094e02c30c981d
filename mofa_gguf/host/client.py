"""Asking a provider, from code without an event loop.

Everything is done by ``AsyncLLMClient``; this one runs it in an event loop of its own.
"""

from __future__ import annotations

import weakref
from collections.abc import Generator, Iterable, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar, overload

from mofa_gguf.contract.chunks import ChatCompletionChunk
from mofa_gguf.contract.provider import LLMProvider
from mofa_gguf.contract.responses import ChatCompletionResponse
from mofa_gguf.host.asked import Conversation
from mofa_gguf.host.async_client import AsyncLLMClient
from mofa_gguf.host.in_flight import BatchItem
from mofa_gguf.host.llm_config import LLMConfig
from mofa_gguf.host.loading import load_provider
from mofa_gguf.host.portal import PortalThread
from mofa_gguf.host.registry import ProviderRegistry
from mofa_gguf.host.retry import LLMRetryPolicy
from mofa_gguf.host.sync_session import ChatSession
from mofa_gguf.host.tool_loop import AnyTool, RunResult

T = TypeVar("T")


class LLMClient:
    """``AsyncLLMClient`` for synchronous callers, of any number of threads.

    An event loop starts in a thread of its own with the first call and ends with ``close``, which
    the ``with`` form calls. A client that is dropped unclosed ends its loop but leaves the provider
    open; one that lives until the interpreter exits is closed then. From inside a running event
    loop the client works, and blocks that loop: use ``AsyncLLMClient`` there.

    Arguments and options are those of ``AsyncLLMClient``.
    """

    def __init__(
        self,
        provider: LLMProvider,
        config: LLMConfig | None = None,
        *,
        close_provider: bool = True,
        retry: LLMRetryPolicy | None = None,
    ) -> None:
        self._client = AsyncLLMClient(provider, config, close_provider=close_provider, retry=retry)
        self._portal = PortalThread(self._client.close if close_provider else None)
        self._abandon = weakref.finalize(self, self._portal.abandon)
        self._abandon.atexit = False  # at exit the portal thread closes the provider as well

    @classmethod
    def load(
        cls,
        path: Path | str | None = None,
        *,
        name: str | None = None,
        registry: ProviderRegistry | None = None,
    ) -> LLMClient:
        """A client of the provider that ``load_provider`` makes; takes and raises what it does."""
        return cls(load_provider(path, name=name, registry=registry))

    @property
    def provider(self) -> LLMProvider:
        """What answers."""
        return self._client.provider

    @property
    def config(self) -> LLMConfig | None:
        """The defaults of requests, if there are any."""
        return self._client.config

    def ask(self, prompt: str, **options: Any) -> str:
        """As ``AsyncLLMClient.ask``."""
        return self._portal.call(partial(self._client.ask, prompt, **options))

    def ask_with_system(self, system: str, prompt: str, **options: Any) -> str:
        """As ``AsyncLLMClient.ask_with_system``."""
        return self._portal.call(partial(self._client.ask_with_system, system, prompt, **options))

    def ask_stream(self, prompt: str, **options: Any) -> Generator[str, None, None]:
        """As ``AsyncLLMClient.ask_stream``.

        The request is sent when the first piece is asked for; leaving the loop that reads the
        pieces, or closing the generator, cancels the rest of the answer.
        """
        yield from self._portal.iterate(partial(self._client.ask_stream, prompt, **options))

    def chat(self, conversation: Conversation, **options: Any) -> ChatCompletionResponse:
        """As ``AsyncLLMClient.chat``."""
        return self._portal.call(partial(self._client.chat, conversation, **options))

    def stream(
        self, conversation: Conversation, **options: Any
    ) -> Generator[ChatCompletionChunk, None, None]:
        """As ``AsyncLLMClient.stream``; sent and cancelled as in ``ask_stream``."""
        yield from self._portal.iterate(partial(self._client.stream, conversation, **options))

    def run(
        self, conversation: Conversation, tools: Iterable[AnyTool] = (), **options: Any
    ) -> RunResult:
        """As ``AsyncLLMClient.run``, with its options.

        Tools run while this thread waits, and may use the client.
        """
        return self._portal.call(partial(self._client.run, conversation, tools, **options))

    @overload
    def parse(self, conversation: Conversation, response_format: type[T], **options: Any) -> T: ...
    @overload
    def parse(self, conversation: Conversation, response_format: Any, **options: Any) -> Any: ...
    def parse(self, conversation: Conversation, response_format: Any, **options: Any) -> Any:
        """As ``AsyncLLMClient.parse``."""
        return self._portal.call(
            partial(self._client.parse, conversation, response_format, **options)
        )

    def batch(
        self, conversations: Iterable[Conversation], *, parallel: int = 32, **options: Any
    ) -> Generator[BatchItem[Conversation], None, None]:
        """As ``AsyncLLMClient.batch``; the conversations are taken in the client's own thread."""
        yield from self._portal.iterate(
            partial(self._client.batch, conversations, parallel=parallel, **options)
        )

    def embed(self, text: str) -> list[float]:
        """As ``AsyncLLMClient.embed``."""
        return self._portal.call(partial(self._client.embed, text))

    def embed_batch(self, texts: Sequence[str]) -> list[list[float]]:
        """As ``AsyncLLMClient.embed_batch``."""
        return self._portal.call(partial(self._client.embed_batch, texts))

    def session(self, **settings: Any) -> ChatSession:
        """A conversation that remembers itself; settings as for ``AsyncChatSession``."""
        return ChatSession(self._client.session(**settings), self._portal)

    def close(self) -> None:
        """Cancel what runs, close the provider (unless told not to) and end the event loop.

        May be called twice, and from any thread.

        Raises:
            LLMError: whatever closing the provider raises.
        """
        self._portal.close()

    def __enter__(self) -> LLMClient:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

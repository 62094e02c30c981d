"""Asking a provider, from async code.

After MoFA's ``LLMClient``. Its defaults (temperature 0.7, 4096 tokens) go into a request only where
an ``LLMConfig`` was given and says so itself: a local model often carries better sampling defaults
of its own, which a silent request leaves in force.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any

from pydantic import ValidationError

from mofa_gguf.contract.base import explain_validation
from mofa_gguf.contract.chunks import ChatCompletionChunk
from mofa_gguf.contract.embeddings import EmbeddingInput, EmbeddingRequest
from mofa_gguf.contract.errors import ConfigError, Other
from mofa_gguf.contract.messages import ChatMessage
from mofa_gguf.contract.provider import LLMProvider
from mofa_gguf.contract.requests import ChatCompletionRequest
from mofa_gguf.contract.responses import ChatCompletionResponse
from mofa_gguf.host.jobs import close_stream
from mofa_gguf.host.llm_config import LLMConfig

Conversation = (
    str
    | ChatMessage
    | ChatCompletionRequest
    | Mapping[str, Any]
    | Sequence[ChatMessage | Mapping[str, Any]]
)
"""What ``chat`` takes: a user's text, one message, several, or a request; dicts are messages."""


class AsyncLLMClient:
    """A provider with convenient questions.

    ``options`` are fields of ``ChatCompletionRequest`` (``temperature=0``, ``tools=[...]``), and
    any other keyword goes to the request's ``extra`` (``seed=1``, ``top_k=40``) for the provider
    to know or refuse.

    Args:
        provider: what answers.
        config: its ``default_model`` is asked where a request names none; its
            ``default_temperature`` and ``default_max_tokens`` fill requests that are silent about
            them, if the config was given them explicitly.
        close_provider: whether ``close`` closes the provider too; False if others use it.
    """

    def __init__(
        self,
        provider: LLMProvider,
        config: LLMConfig | None = None,
        *,
        close_provider: bool = True,
    ) -> None:
        self._provider = provider
        self._config = config
        self._close_provider = close_provider

    @property
    def provider(self) -> LLMProvider:
        """What answers."""
        return self._provider

    @property
    def config(self) -> LLMConfig | None:
        """The defaults of requests, if there are any."""
        return self._config

    async def ask(self, prompt: str, **options: Any) -> str:
        """The model's answer to one question.

        Raises:
            ConfigError: an option has the wrong type.
            Other: the answer has no text, for example because the model calls a tool instead.
            LLMError: whatever the provider raises.
        """
        return _text_of(await self.chat(prompt, **options))

    async def ask_with_system(self, system: str, prompt: str, **options: Any) -> str:
        """The model's answer to one question under a system prompt; raises as ``ask`` does."""
        messages = [ChatMessage.system(system), ChatMessage.user(prompt)]
        return _text_of(await self.chat(messages, **options))

    async def ask_stream(self, prompt: str, **options: Any) -> AsyncGenerator[str, None]:
        """The pieces of the model's answer to one question, none of them empty.

        Closing the generator early cancels the answer. Raises as ``stream`` does.
        """
        async with _closing(self.stream(prompt, **options)) as chunks:
            async for chunk in chunks:
                for choice in chunk.choices:
                    if choice.index == 0 and choice.delta.content:
                        yield choice.delta.content

    async def chat(self, conversation: Conversation, **options: Any) -> ChatCompletionResponse:
        """The model's next message.

        Raises:
            ConfigError: an option or message has the wrong type.
            LLMError: whatever the provider raises.
        """
        return await self._provider.chat(self.request(conversation, **options))

    async def stream(
        self, conversation: Conversation, **options: Any
    ) -> AsyncGenerator[ChatCompletionChunk, None]:
        """The model's next message piece by piece. Closing the generator early cancels it.

        Raises:
            ConfigError: an option or message has the wrong type.
            LLMError: whatever the provider raises.
        """
        request = self.request(conversation, **options).with_stream()
        async with _closing(self._provider.chat_stream(request)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def embed(self, text: str) -> list[float]:
        """A text's vector.

        Raises:
            Other: the provider answered with no vector, or several.
            LLMError: whatever the provider raises.
        """
        return (await self._embed(text, n_texts=1))[0]

    async def embed_batch(self, texts: Sequence[str]) -> list[list[float]]:
        """The texts' vectors, in the order of the texts; raises as ``embed`` does."""
        if isinstance(texts, str):
            raise ConfigError("embed_batch takes several texts; use embed for one", field="texts")
        return await self._embed(list(texts), n_texts=len(texts)) if texts else []

    def request(self, conversation: Conversation, **options: Any) -> ChatCompletionRequest:
        """The request that ``chat`` sends for a conversation and options.

        Raises:
            ConfigError: an option or message has the wrong type (``field`` names it).
        """
        try:
            request = _as_request(conversation).with_options(options)
        except ValidationError as error:
            field, problem = explain_validation(error)
            raise ConfigError(f"this is no request: {problem}", field=field) from error
        missing: dict[str, Any] = {}
        if not request.model:
            missing["model"] = self._model()
        given = self._config.given() if self._config is not None else frozenset()
        if self._config is not None:
            if request.temperature is None and "default_temperature" in given:
                missing["temperature"] = self._config.default_temperature
            if request.max_tokens is None and "default_max_tokens" in given:
                missing["max_tokens"] = self._config.default_max_tokens
        return request.model_copy(update=missing)

    async def close(self) -> None:
        """Close the provider, unless the client was told not to. May be called twice."""
        if self._close_provider:
            await self._provider.close()

    async def __aenter__(self) -> AsyncLLMClient:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def _model(self) -> str:
        configured = self._config.default_model if self._config is not None else None
        return configured or self._provider.default_model()

    async def _embed(self, texts: EmbeddingInput, *, n_texts: int) -> list[list[float]]:
        # MoFA asks for "text-embedding-ada-002" where no model is configured, which makes sense for
        # one provider only; ours asks for the provider's default.
        request = EmbeddingRequest(model=self._model(), input=texts)
        data = (await self._provider.embedding(request)).data
        if len(data) != n_texts:
            raise Other(
                f"{self._provider.name()} answered {n_texts} texts with {len(data)} vectors"
            )
        return [item.embedding for item in sorted(data, key=lambda item: item.index)]


def _as_request(conversation: Conversation) -> ChatCompletionRequest:
    if isinstance(conversation, ChatCompletionRequest):
        return conversation
    if isinstance(conversation, str):
        messages: list[Any] = [ChatMessage.user(conversation)]
    elif isinstance(conversation, ChatMessage | Mapping):
        messages = [conversation]
    else:
        messages = list(conversation)
    return ChatCompletionRequest(messages=messages)


def _text_of(response: ChatCompletionResponse) -> str:
    text = response.content()
    if text is not None:
        return text
    calls = response.tool_calls() or []
    reason = f": the model calls {', '.join(call.function.name for call in calls)}" if calls else ""
    raise Other(f"No content in response{reason}; use chat to see all of it")


@asynccontextmanager
async def _closing(
    stream: AsyncIterator[Any],
) -> AsyncGenerator[AsyncIterator[Any], None]:
    """``contextlib.aclosing`` for iterators that need not be generators."""
    try:
        yield stream
    finally:
        await close_stream(stream)

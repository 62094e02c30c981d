"""Asking a provider, from async code.

After MoFA's ``LLMClient``. Its defaults (temperature 0.7, 4096 tokens) go into a request only where
an ``LLMConfig`` was given and says so itself: a local model often carries better sampling defaults
of its own, which a silent request leaves in force.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Sequence
from functools import partial
from types import TracebackType
from typing import Any, TypeVar, overload

from pydantic import ValidationError

from mofa_gguf.contract.base import explain_validation
from mofa_gguf.contract.chunks import ChatCompletionChunk
from mofa_gguf.contract.embeddings import EmbeddingInput, EmbeddingRequest
from mofa_gguf.contract.errors import ConfigError, Other
from mofa_gguf.contract.provider import LLMProvider
from mofa_gguf.contract.requests import ChatCompletionRequest
from mofa_gguf.contract.responses import ChatCompletionResponse
from mofa_gguf.host.answers import text_of
from mofa_gguf.host.asked import Conversation, as_request, as_text
from mofa_gguf.host.formats import as_response_format, read_answer
from mofa_gguf.host.in_flight import BatchItem, answer_batch
from mofa_gguf.host.llm_config import LLMConfig
from mofa_gguf.host.loading import with_retries
from mofa_gguf.host.retry import LLMRetryPolicy
from mofa_gguf.host.retrying import RetryingProvider
from mofa_gguf.host.session import AsyncChatSession
from mofa_gguf.host.streams import closing
from mofa_gguf.host.tool_executor import ToolExecutor
from mofa_gguf.host.tool_loop import AnyTool, RunResult, Toolbox, ToolLimits, run_tools, several

T = TypeVar("T")


class AsyncLLMClient:
    """A provider with convenient questions.

    ``options`` are fields of ``ChatCompletionRequest`` (``temperature=0``, ``tools=[...]``), and
    any other keyword goes to the request's ``extra`` (``seed=1``, ``top_k=40``) for the provider
    to know or refuse. ``response_format`` may be a Python type or a JSON Schema as well.

    Args:
        provider: what answers.
        config: its ``default_model`` is asked where a request names none; its
            ``default_temperature`` and ``default_max_tokens`` fill requests that are silent about
            them, if the config was given them explicitly; its ``max_retries``, given explicitly,
            is how often a failed request is sent again.
        close_provider: whether ``close`` closes the provider too; False if others use it.
        retry: when and how failed requests are sent again, in place of the config's word.
    """

    def __init__(
        self,
        provider: LLMProvider,
        config: LLMConfig | None = None,
        *,
        close_provider: bool = True,
        retry: LLMRetryPolicy | None = None,
    ) -> None:
        self._provider = provider
        self._config = config
        self._close_provider = close_provider
        if retry is not None:
            self._asked: LLMProvider = RetryingProvider(provider, retry)
        else:
            self._asked = provider if config is None else with_retries(provider, config)

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
        return text_of(await self.chat(prompt, **options))

    async def ask_with_system(self, system: str, prompt: str, **options: Any) -> str:
        """The model's answer to one question under a system prompt; raises as ``ask`` does."""
        messages = [{"role": "system", "content": system}, {"role": "user", "content": prompt}]
        return text_of(await self.chat(messages, **options))

    async def ask_stream(self, prompt: str, **options: Any) -> AsyncGenerator[str, None]:
        """The pieces of the model's answer to one question, none of them empty.

        Closing the generator early cancels the answer. Raises as ``stream`` does.
        """
        async with closing(self.stream(prompt, **options)) as chunks:
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
        return await self._asked.chat(self.request(conversation, **options))

    async def stream(
        self, conversation: Conversation, **options: Any
    ) -> AsyncGenerator[ChatCompletionChunk, None]:
        """The model's next message piece by piece. Closing the generator early cancels it.

        Raises:
            ConfigError: an option or message has the wrong type.
            LLMError: whatever the provider raises.
        """
        request = self.request(conversation, **options).with_stream()
        async with closing(self._asked.chat_stream(request)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def run(
        self,
        conversation: Conversation,
        tools: Iterable[AnyTool] = (),
        *,
        executor: ToolExecutor | None = None,
        max_tool_rounds: int = 10,
        tool_timeout_s: float = 30.0,
        **options: Any,
    ) -> RunResult:
        """The model's answer after the calls of tools it wants, which are run here.

        Args:
            conversation: as for ``chat``.
            tools: Python functions, whose type hints and docstrings the model is told of, or tool
                definitions, which ``executor`` runs, as it does those of a request. The calls of
                one answer run side by side, synchronous functions in a thread each. A call that
                fails or takes too long is told to the model as ``Error: ...``.
            executor: runs the definitions among ``tools``; all it offers, if there are none.
            max_tool_rounds: how many answers with calls are acted upon.
            tool_timeout_s: how long one call may take.
            options: as for ``chat``.

        Raises:
            ConfigError: a function cannot be a tool, or an option or message has the wrong type.
            ToolRoundsExceeded: the model went on calling tools; the error has the trace.
            LLMError: whatever the provider raises.
        """
        limits = ToolLimits(max_rounds=max_tool_rounds, timeout_s=tool_timeout_s)
        request = self.request(conversation, **options)
        toolbox = await Toolbox.of([*several(tools), *(request.tools or ())], executor)
        return await run_tools(self._asked.chat, request, toolbox, limits)

    @overload
    async def parse(
        self, conversation: Conversation, response_format: type[T], **options: Any
    ) -> T: ...
    @overload
    async def parse(
        self, conversation: Conversation, response_format: Any, **options: Any
    ) -> Any: ...
    async def parse(self, conversation: Conversation, response_format: Any, **options: Any) -> Any:
        """The model's next message as a value.

        Args:
            conversation: as for ``chat``.
            response_format: a pydantic model, dataclass or other type, whose JSON Schema the model
                is given and whose instance comes back; or a JSON Schema as a dict, or a
                ``ResponseFormat``, for which the decoded JSON comes back.
            options: as for ``chat``.

        Raises:
            ConfigError: the type has no JSON Schema, or an option or message has the wrong type.
            SerializationError: the answer is no such value (``content`` is the answer).
            Other: the answer has no text, for example because the model calls a tool instead.
            LLMError: whatever the provider raises.
        """
        response = await self.chat(conversation, response_format=response_format, **options)
        text_of(response)
        return read_answer(response, response_format)

    def batch(
        self, conversations: Iterable[Conversation], *, parallel: int = 32, **options: Any
    ) -> AsyncGenerator[BatchItem[Conversation], None]:
        """The answers to many conversations, in the order of completion.

        ``parallel`` of them are in flight at any time, so that the provider computes them together;
        conversations are taken from the iterable as they are needed. One that fails has its error
        in its item, and the rest goes on; while too many requests wait, they are sent again later.
        Closing the generator early cancels those in flight. Options are those of ``chat``.
        """
        if not isinstance(parallel, int) or parallel < 1:
            raise ConfigError(f"parallel is at least 1, not {parallel!r}", field="parallel")
        if not isinstance(conversations, Iterable):
            raise ConfigError(
                f"conversations is a {type(conversations).__name__}; give several, such as a list",
                field="conversations",
            )
        return answer_batch(partial(self.chat, **options), conversations, limit=parallel)

    async def embed(self, text: str) -> list[float]:
        """A text's vector.

        Raises:
            ConfigError: it is no text.
            Other: the provider answered with no vector, or several.
            LLMError: whatever the provider raises.
        """
        return (await self._embed(as_text(text, "text"), n_texts=1))[0]

    async def embed_batch(self, texts: Sequence[str]) -> list[list[float]]:
        """The texts' vectors, in the order of the texts; raises as ``embed`` does."""
        if isinstance(texts, str):
            raise ConfigError("embed_batch takes several texts; use embed for one", field="texts")
        if not isinstance(texts, Iterable):
            raise ConfigError(f"texts is a {type(texts).__name__}; give a list", field="texts")
        read = [as_text(text, f"texts.{number}") for number, text in enumerate(texts)]
        return await self._embed(read, n_texts=len(read)) if read else []

    def request(self, conversation: Conversation, **options: Any) -> ChatCompletionRequest:
        """The request that ``chat`` sends for a conversation and options.

        Raises:
            ConfigError: an option or message has the wrong type (``field`` names it).
        """
        if "response_format" in options:
            options["response_format"] = as_response_format(options["response_format"])
        try:
            request = as_request(conversation).with_options(options)
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

    def session(self, **settings: Any) -> AsyncChatSession:
        """A conversation that remembers itself; settings as for ``AsyncChatSession``."""
        return AsyncChatSession(self, **settings)

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
        # MoFA asks for the default model, or for "text-embedding-ada-002", which makes sense for
        # one provider only. A provider that is asked for no model takes the one it embeds with.
        request = EmbeddingRequest(model="", input=texts)
        data = (await self._asked.embedding(request)).data
        if len(data) != n_texts:
            raise Other(
                f"{self._provider.name()} answered {n_texts} texts with {len(data)} vectors"
            )
        return [item.embedding for item in sorted(data, key=lambda item: item.index)]

"""A conversation that remembers itself: MoFA's ``ChatSession``, for async code."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mofa_gguf.contract.chunks import ChatCompletionChunk
from mofa_gguf.contract.errors import ConfigError, ContextLengthExceeded
from mofa_gguf.contract.messages import ChatMessage, ContentPart
from mofa_gguf.contract.responses import ChatCompletionResponse, LLMResponseMetadata
from mofa_gguf.contract.streaming import ResponseGatherer
from mofa_gguf.contract.tools import Tool
from mofa_gguf.host.answers import text_of
from mofa_gguf.host.session_context import Exchange, Memory, SessionSettings
from mofa_gguf.host.session_file import SessionState, read_session, write_session
from mofa_gguf.host.streams import closing, until_news
from mofa_gguf.host.token_budget import TokenBudgetConfig
from mofa_gguf.host.tool_executor import ToolExecutor
from mofa_gguf.host.tool_loop import AnyTool, Toolbox, ToolLimits, run_tools, several

if TYPE_CHECKING:
    from mofa_gguf.host.async_client import AsyncLLMClient

UserContent = str | ChatMessage | Sequence[ContentPart]
"""What a user says: text, a message, or content parts."""

_DEFAULT_BUDGET = TokenBudgetConfig()


class AsyncChatSession:
    """A conversation with one client.

    Every answer and every tool call goes into ``messages``. When the conversation outgrows the
    model's context, the model no longer sees its oldest turns (``token_budget`` says when), and a
    request that the provider still finds too long is sent once more with less. ``messages`` keeps
    all of it. A ``send`` that fails leaves the session as it was.

    One message at a time: a second ``send`` waits for the first.

    Args:
        client: what is asked; it stays the caller's to close.
        session_id: a name for it; a random one without.
        system: the system prompt.
        tools: as for ``AsyncLLMClient.run``; every ``send`` may call them.
        executor: as for ``AsyncLLMClient.run``.
        context_window_size: the most turns that the model sees, the new one included.
        token_budget: how prompts are kept within the context; None leaves them alone.
        options: go into every request, as for ``AsyncLLMClient.chat``.

    Raises:
        ConfigError: ``context_window_size`` is no number of turns.
    """

    def __init__(
        self,
        client: AsyncLLMClient,
        *,
        session_id: str | None = None,
        system: str | None = None,
        tools: Iterable[AnyTool] = (),
        executor: ToolExecutor | None = None,
        context_window_size: int | None = None,
        token_budget: TokenBudgetConfig | None = _DEFAULT_BUDGET,
        **options: Any,
    ) -> None:
        self._client = client
        self._id = session_id or str(uuid.uuid4())
        self._tools = several(tools)
        self._executor = executor
        self._settings = SessionSettings(client, system, None, token_budget)
        self._options = options
        self._memory = Memory()
        self._lock = asyncio.Lock()
        self._metadata: LLMResponseMetadata | None = None
        self.with_context_window_size(context_window_size)

    @classmethod
    def load(cls, path: Path | str, client: AsyncLLMClient, **settings: Any) -> AsyncChatSession:
        """The session that ``save`` wrote.

        Tools, budget and options are not in the file; ``settings`` are those of the class, and go
        before what the file says.

        Raises:
            ConfigError: the file cannot be read.
            SerializationError: it holds no session.
        """
        state = read_session(path)
        saved = {
            "session_id": state.session_id,
            "system": state.system_prompt,
            "context_window_size": state.context_window_size,
        }
        session = cls(client, **{**saved, **settings})
        session._memory = Memory(list(state.messages), state.n_hidden_turns, state.summary)
        return session

    def save(self, path: Path | str) -> None:
        """Write the conversation to a JSON file, whole or not at all.

        Raises:
            ConfigError: the file cannot be written.
        """
        state = SessionState(
            session_id=self._id,
            system_prompt=self._settings.system,
            context_window_size=self._settings.window,
            messages=self._memory.messages,
            n_hidden_turns=self._memory.n_hidden_turns,
            summary=self._memory.summary,
        )
        write_session(state, path)

    @property
    def client(self) -> AsyncLLMClient:
        """What is asked."""
        return self._client

    @property
    def session_id(self) -> str:
        """Its name."""
        return self._id

    @property
    def system_prompt(self) -> str | None:
        """The system prompt; it is not among the messages."""
        return self._settings.system

    @property
    def context_window_size(self) -> int | None:
        """The most turns that the model sees."""
        return self._settings.window

    @property
    def last_response_metadata(self) -> LLMResponseMetadata | None:
        """Id, model and usage of the last response; None before it."""
        return self._metadata

    def messages(self) -> list[ChatMessage]:
        """The whole conversation, also what the model no longer sees."""
        return list(self._memory.messages)

    def context(self) -> list[ChatMessage]:
        """What the model sees of the conversation: the system message and the newest turns."""
        return self._memory.prompt(self._settings.system, self._settings.window)

    def __len__(self) -> int:
        return len(self._memory.messages)

    def __bool__(self) -> bool:
        return True  # also when there are no messages yet

    def clear(self) -> None:
        """Forget the conversation, but not the system prompt."""
        self._memory = Memory()

    def with_system(self, prompt: str | None) -> AsyncChatSession:
        """This session, with a system prompt."""
        self._settings.system = prompt
        return self

    def with_context_window_size(self, n_turns: int | None) -> AsyncChatSession:
        """This session, of which the model sees at most so many turns; None for no limit."""
        if n_turns is not None and n_turns < 1:
            raise ConfigError(
                f"context_window_size is a number of turns, at least 1, not {n_turns}",
                field="context_window_size",
            )
        self._settings.window = n_turns
        return self

    def with_tools(
        self, tools: Iterable[AnyTool], executor: ToolExecutor | None = None
    ) -> AsyncChatSession:
        """This session, with tools in place of any others."""
        self._tools, self._executor = several(tools), executor
        return self

    def with_token_budget(self, budget: TokenBudgetConfig | None) -> AsyncChatSession:
        """This session, with another budget."""
        self._settings.budget = budget
        return self

    async def send(
        self,
        content: UserContent,
        *,
        max_tool_rounds: int = 10,
        tool_timeout_s: float = 30.0,
        **options: Any,
    ) -> str:
        """The model's answer to a user's message, tools run on the way.

        Options are as for ``AsyncLLMClient.run``.

        Raises:
            Other: the answer has no text.
            ContextLengthExceeded: the message alone does not fit.
            LLMError: whatever else ``AsyncLLMClient.run`` raises.
        """
        limits = ToolLimits(max_rounds=max_tool_rounds, timeout_s=tool_timeout_s)
        async with self._lock:
            toolbox = await Toolbox.of(self._tools, self._executor)
            exchange = await self._begin(content, toolbox.definitions, options)
            result = await run_tools(exchange.chat, exchange.request, toolbox, limits)
            text_of(result.response)
            self._remember(exchange.memory, result.messages, result.response)
            return result.answer

    async def send_stream(self, content: UserContent, **options: Any) -> AsyncGenerator[str, None]:
        """The pieces of the model's answer to a user's message; for sessions without tools.

        Closing the generator early cancels the answer, and leaves the session as it was.

        Raises:
            ConfigError: the session has tools.
            LLMError: whatever ``AsyncLLMClient.stream`` raises.
        """
        if self._tools or self._executor is not None:
            raise ConfigError("send_stream runs no tools; use send in a session with tools")
        async with self._lock:
            exchange = await self._begin(content, (), options)
            gatherer = ResponseGatherer()
            async with closing(self._chunks(exchange)) as chunks:
                async for chunk in chunks:
                    gatherer.add(chunk)
                    for choice in chunk.choices:
                        if choice.index == 0 and choice.delta.content:
                            yield choice.delta.content
            response = gatherer.response()
            answer = [choice.message for choice in response.choices[:1]]
            self._remember(exchange.memory, [*exchange.request.messages, *answer], response)

    async def force_compress(self) -> int:
        """Hide the older half of what the model sees from it; how many turns that was.

        With the budget's ``use_llm_summarize`` the model sums them up first.
        """
        async with self._lock:
            memory, window = self._memory.copy(), self._settings.window
            n_turns = (len(memory.visible(window)) + 1) // 2
            model = self._options.get("model") or ""
            await self._settings.hide(memory, n_turns, window, model)
            self._memory = memory
            return n_turns

    async def _begin(
        self, content: UserContent, tools: Sequence[Tool], options: dict[str, Any]
    ) -> Exchange:
        """A new turn that begins with this message, with room made for it."""
        request = self._client.request([_as_message(content)], **{**self._options, **options})
        exchange = Exchange(self._settings, self._memory, request, tools)
        await exchange.make_room()
        return exchange

    async def _chunks(self, exchange: Exchange) -> AsyncGenerator[ChatCompletionChunk, None]:
        """The answer's chunks; a request that is too long is sent once more with less."""
        while True:
            async with closing(self._client.stream(exchange.whole_request())) as chunks:
                try:
                    first = await until_news(chunks)
                except ContextLengthExceeded as error:
                    await exchange.recover(error)
                    continue
                for chunk in first:
                    yield chunk
                async for chunk in chunks:
                    yield chunk
                return

    def _remember(
        self, memory: Memory, turn: Sequence[ChatMessage], response: ChatCompletionResponse
    ) -> None:
        memory.messages += turn
        self._memory = memory
        self._metadata = LLMResponseMetadata.of(response)


def _as_message(content: UserContent) -> ChatMessage | dict[str, Any]:
    """The message, or what the request makes one of and finds fault with."""
    return content if isinstance(content, ChatMessage) else {"role": "user", "content": content}

"""A conversation that remembers itself, for code without an event loop."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mofa_gguf.contract.messages import ChatMessage
from mofa_gguf.contract.responses import LLMResponseMetadata
from mofa_gguf.host.portal import PortalThread
from mofa_gguf.host.session import AsyncChatSession, UserContent
from mofa_gguf.host.token_budget import TokenBudgetConfig
from mofa_gguf.host.tool_executor import ToolExecutor
from mofa_gguf.host.tool_loop import AnyTool

if TYPE_CHECKING:
    from mofa_gguf.host.client import LLMClient


class ChatSession:
    """``AsyncChatSession`` for synchronous callers; ``LLMClient.session`` makes one."""

    def __init__(self, session: AsyncChatSession, portal: PortalThread) -> None:
        self._session = session
        self._portal = portal

    @classmethod
    def new(cls, client: LLMClient, **settings: Any) -> ChatSession:
        """A session with a random id; settings as for ``AsyncChatSession``."""
        return client.session(**settings)

    @classmethod
    def with_id(cls, session_id: str, client: LLMClient, **settings: Any) -> ChatSession:
        """A session with this id; settings as for ``AsyncChatSession``."""
        return client.session(session_id=session_id, **settings)

    @classmethod
    def load(cls, path: Path | str, client: LLMClient, **settings: Any) -> ChatSession:
        """As ``AsyncChatSession.load``."""
        made = client.session()
        made._session = AsyncChatSession.load(path, made._session.client, **settings)
        return made

    def save(self, path: Path | str) -> None:
        """As ``AsyncChatSession.save``."""
        self._session.save(path)

    @property
    def session_id(self) -> str:
        """Its name."""
        return self._session.session_id

    @property
    def system_prompt(self) -> str | None:
        """The system prompt; it is not among the messages."""
        return self._session.system_prompt

    @property
    def context_window_size(self) -> int | None:
        """The most turns that the model sees."""
        return self._session.context_window_size

    @property
    def last_response_metadata(self) -> LLMResponseMetadata | None:
        """Id, model and usage of the last response; None before it."""
        return self._session.last_response_metadata

    def messages(self) -> list[ChatMessage]:
        """As ``AsyncChatSession.messages``."""
        return self._session.messages()

    def context(self) -> list[ChatMessage]:
        """As ``AsyncChatSession.context``."""
        return self._session.context()

    def __len__(self) -> int:
        return len(self._session)

    def __bool__(self) -> bool:
        return True  # also when there are no messages yet

    def clear(self) -> None:
        """As ``AsyncChatSession.clear``."""
        self._session.clear()

    def with_system(self, prompt: str | None) -> ChatSession:
        """This session, with a system prompt."""
        self._session.with_system(prompt)
        return self

    def with_context_window_size(self, n_turns: int | None) -> ChatSession:
        """This session, of which the model sees at most so many turns; None for no limit."""
        self._session.with_context_window_size(n_turns)
        return self

    def with_tools(
        self, tools: Iterable[AnyTool], executor: ToolExecutor | None = None
    ) -> ChatSession:
        """This session, with tools in place of any others."""
        self._session.with_tools(tools, executor)
        return self

    def with_token_budget(self, budget: TokenBudgetConfig | None) -> ChatSession:
        """This session, with another budget."""
        self._session.with_token_budget(budget)
        return self

    def send(self, content: UserContent, **options: Any) -> str:
        """As ``AsyncChatSession.send``."""
        return self._portal.call(partial(self._session.send, content, **options))

    def send_stream(self, content: UserContent, **options: Any) -> Generator[str, None, None]:
        """As ``AsyncChatSession.send_stream``; sent when the first piece is asked for."""
        yield from self._portal.iterate(partial(self._session.send_stream, content, **options))

    def force_compress(self) -> int:
        """As ``AsyncChatSession.force_compress``."""
        return self._portal.call(self._session.force_compress)

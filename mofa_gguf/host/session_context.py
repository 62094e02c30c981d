"""What a session's model sees of the past, and keeping that within its context."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mofa_gguf.contract.errors import ContextLengthExceeded, LLMError
from mofa_gguf.contract.messages import ChatMessage
from mofa_gguf.contract.requests import ChatCompletionRequest
from mofa_gguf.contract.responses import ChatCompletionResponse
from mofa_gguf.contract.tools import Tool
from mofa_gguf.host.session_texts import SUMMARY_MAX_TOKENS, summary_request, with_summary
from mofa_gguf.host.token_budget import (
    CharBasedEstimator,
    TokenBudgetConfig,
    Turn,
    n_turns_to_drop,
    turns_of,
)
from mofa_gguf.host.wrapping import count_tokens

if TYPE_CHECKING:
    from mofa_gguf.host.async_client import AsyncLLMClient

log = logging.getLogger(__name__)


@dataclass
class Memory:
    """A conversation, of which the model sees all but the first turns, and a summary of those."""

    messages: list[ChatMessage] = field(default_factory=list)
    n_hidden_turns: int = 0
    summary: str | None = None

    def copy(self) -> Memory:
        """Another one like it."""
        return Memory(list(self.messages), self.n_hidden_turns, self.summary)

    def visible(self, window: int | None) -> list[Turn]:
        """The turns that the model sees, at most ``window`` of them."""
        turns = turns_of(self.messages)[self.n_hidden_turns :]
        return turns if window is None else turns[max(0, len(turns) - window) :]

    def hidden(self, n_turns: int, window: int | None) -> Memory:
        """This memory with the first of its visible turns hidden too."""
        n_kept = len(self.visible(window)) - n_turns
        return Memory(self.messages, len(turns_of(self.messages)) - n_kept, self.summary)

    def prompt(self, system: str | None, window: int | None) -> list[ChatMessage]:
        """The system message, and the turns that the model sees."""
        text = with_summary(system, self.summary)
        past = [message for turn in self.visible(window) for message in turn]
        return [*([ChatMessage.system(text)] if text else []), *past]


@dataclass
class SessionSettings:
    """What holds for every turn of a session; ``window`` is in turns, None for no limit."""

    client: AsyncLLMClient
    system: str | None
    window: int | None
    budget: TokenBudgetConfig | None
    n_ctx: dict[str, int | None] = field(default_factory=dict)
    """The contexts' sizes as the provider says, of the models that it was asked about."""

    async def hide(self, memory: Memory, n_turns: int, window: int | None, model: str) -> int:
        """Hide the first visible turns, summed up if the budget wants that; how many it were."""
        if n_turns <= 0:
            return 0
        if self.budget is not None and self.budget.use_llm_summarize:
            turns = memory.visible(window)[:n_turns]
            memory.summary = await self._summarize(memory.summary, turns, model)
        memory.n_hidden_turns = memory.hidden(n_turns, window).n_hidden_turns
        log.info("%d old turns of a session are no longer sent", n_turns)
        return n_turns

    async def context_tokens(self, model: str) -> int | None:
        """The context's size; None where nobody says."""
        if self.budget is not None and self.budget.context_window_tokens is not None:
            return self.budget.context_window_tokens
        if self.n_ctx.get(model) is None:
            try:
                info = await self.client.provider.get_model_info(model)
                self.n_ctx[model] = info.context_window
            except LLMError as error:  # the request itself may do better, for example in a chain
                log.debug("the context's size is not known: %s", error)
        return self.n_ctx.get(model)

    async def count(
        self, messages: Sequence[ChatMessage], tools: Sequence[Tool], model: str
    ) -> int:
        """A prompt's tokens: exact where the provider counts them, otherwise a guess."""
        try:
            return await count_tokens(self.client.provider, messages, tools or None, model=model)
        except LLMError as error:
            log.debug("tokens are estimated: %s", error)
        estimator = CharBasedEstimator()
        return estimator.estimate_total(messages) + estimator.estimate_tools(tools)

    async def _summarize(
        self, summary: str | None, turns: Sequence[Turn], model: str
    ) -> str | None:
        """The summary with that of these turns; half by half where they are too long for one."""
        request = summary_request(summary, turns).model_copy(update={"model": model})
        try:
            response = await self.client.chat(request, max_tokens=SUMMARY_MAX_TOKENS)
        except ContextLengthExceeded as error:
            if len(turns) > 1:
                middle = len(turns) // 2
                summary = await self._summarize(summary, turns[:middle], model)
                return await self._summarize(summary, turns[middle:], model)
            return _forgotten(summary, error)
        except LLMError as error:
            return _forgotten(summary, error)
        return (response.content() or "").strip() or summary


def _forgotten(summary: str | None, error: LLMError) -> str | None:
    """What is known without a new summary: better to forget turns than to lose the new message."""
    log.warning("old turns of a session were not summed up: %s", error)
    return summary


class Exchange:
    """One turn under way, on a copy of the memory that is kept only if the turn succeeds.

    ``request`` has the new turn alone: what ``chat`` sends has the past before it.
    """

    def __init__(
        self,
        settings: SessionSettings,
        memory: Memory,
        request: ChatCompletionRequest,
        tools: Sequence[Tool],
    ) -> None:
        self.memory = memory.copy()
        self.request = request
        self._settings = settings
        self._tools = tools
        # The new turn counts as one.
        self._window = None if settings.window is None else settings.window - 1
        self._recovered = False

    def prompt(self, n_hidden: int = 0) -> list[ChatMessage]:
        """All that the model sees, with so many more turns hidden."""
        memory = self.memory.hidden(n_hidden, self._window) if n_hidden else self.memory
        return [*memory.prompt(self._settings.system, self._window), *self.request.messages]

    def whole_request(self) -> ChatCompletionRequest:
        """The request with all that the model sees now."""
        return self.request.model_copy(update={"messages": self.prompt()})

    async def chat(self, request: ChatCompletionRequest) -> ChatCompletionResponse:
        """Ask, with the past put before the new turn; once more with less if that is too long."""
        self.request = request
        try:
            return await self._settings.client.chat(self.whole_request())
        except ContextLengthExceeded as error:
            await self.recover(error)
            return await self._settings.client.chat(self.whole_request())

    async def make_room(self) -> None:
        """Hide old turns, if the prompt takes more of the context than the budget allows."""
        budget = self._settings.budget
        if budget is None or not self._n_past():
            return
        n_ctx = await self._settings.context_tokens(self.request.model)
        if n_ctx is None:
            return
        n_answer = min(self.request.max_tokens or 0, n_ctx // 2)
        limit = min(int(n_ctx * budget.auto_summarize_threshold), n_ctx - n_answer)
        if await self._count(0) > limit:
            target = min(int(n_ctx * budget.target), limit)
            await self._shrink(target, self._n_past() - (budget.keep_last_n - 1))

    async def recover(self, error: ContextLengthExceeded) -> None:
        """Hide at least half of the past; raise the error if that was done, or there is none."""
        n_past = self._n_past()
        if self._recovered or not n_past:
            raise error
        self._recovered = True
        budget = self._settings.budget or TokenBudgetConfig()
        limit = int((error.n_ctx or 0) * budget.target)
        if error.n_ctx is None:
            await self._hide((n_past + 1) // 2)
        else:
            await self._shrink(limit, n_past, n_least=(n_past + 1) // 2)

    def _n_past(self) -> int:
        return len(self.memory.visible(self._window))

    async def _shrink(self, limit: int, n_most: int, *, n_least: int = 0) -> None:
        """Hide the fewest turns that leave a prompt of ``limit`` tokens."""
        n_turns = await n_turns_to_drop(max(0, n_most), limit, self._count)
        await self._hide(max(n_turns, n_least))

    async def _hide(self, n_turns: int) -> None:
        await self._settings.hide(self.memory, n_turns, self._window, self.request.model)

    async def _count(self, n_hidden: int) -> int:
        prompt = self.prompt(n_hidden)
        return await self._settings.count(prompt, self._tools, self.request.model)

"""Threads that read a model's memory have it until they are done, whatever becomes of the task."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest

from mofa_gguf import ChatCompletionRequest, ChatMessage, GGUFProvider, Other
from mofa_gguf.contract import EmbeddingRequest
from mofa_gguf.engine.errors import EngineClosed
from mofa_gguf.provider.loaded import LoadedModel

SECONDS = 60.0
ASK = ChatCompletionRequest.new().user_message("Hello").with_max_tokens(2)

Call = Callable[[GGUFProvider], Awaitable[object]]
CALLS: dict[str, Call] = {
    "chat": lambda provider: provider.chat(ASK),
    "embedding": lambda provider: provider.embedding(EmbeddingRequest(model="", input="Hello")),
    "tokenize": lambda provider: provider.tokenize("Hello"),
    "count_tokens": lambda provider: provider.count_tokens([ChatMessage.user("Hello")]),
}


class SlowTokenizer:
    """Stands before a vocabulary: a call goes on only when it may, and notes what it finds then."""

    def __init__(self, model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun, self.may_go_on, self.done = (threading.Event() for _ in range(3))
        self.was_there: list[bool] = []
        self._model = model
        self._tokenize = model.vocab.tokenize
        monkeypatch.setattr(model.vocab, "tokenize", self)

    @property
    def is_there(self) -> bool:
        """Whether the model's memory has not been freed."""
        return self._model.engine.model.handle is not None

    def __call__(self, *args: Any, **kwargs: Any) -> list[int]:
        self.begun.set()
        assert self.may_go_on.wait(SECONDS)
        self.was_there.append(self.is_there)
        try:
            return self._tokenize(*args, **kwargs)
        finally:
            self.done.set()


@pytest.fixture
async def tokenizer(
    provider: GGUFProvider, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[SlowTokenizer]:
    """That of the provider's model, which is loaded."""
    await provider.load()
    model = provider._pool.get(provider.default_model())
    assert model is not None
    slow = SlowTokenizer(model, monkeypatch)
    yield slow
    slow.may_go_on.set()


async def begun(tokenizer: SlowTokenizer) -> None:
    assert await asyncio.to_thread(tokenizer.begun.wait, SECONDS)


@pytest.mark.parametrize("call", CALLS)
async def test_a_cancelled_task_leaves_its_thread_the_model(
    provider: GGUFProvider, tokenizer: SlowTokenizer, call: str
) -> None:
    task = asyncio.ensure_future(CALLS[call](provider))
    await begun(tokenizer)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    going = asyncio.ensure_future(provider.unload())
    await asyncio.sleep(0.05)
    assert not going.done()
    tokenizer.may_go_on.set()
    await asyncio.wait_for(going, SECONDS)
    assert tokenizer.was_there[0]
    assert not tokenizer.is_there


@pytest.mark.parametrize("call", CALLS)
async def test_closing_the_provider_leaves_its_threads_the_model(
    provider: GGUFProvider, tokenizer: SlowTokenizer, call: str
) -> None:
    task = asyncio.ensure_future(CALLS[call](provider))
    await begun(tokenizer)
    closing = asyncio.ensure_future(provider.close())
    await asyncio.sleep(0.05)
    assert not closing.done()
    tokenizer.may_go_on.set()
    await asyncio.wait_for(closing, SECONDS)
    with suppress(Other):  # what had all it needed is answered
        await task
    assert tokenizer.was_there[0]
    assert not tokenizer.is_there


async def test_a_model_that_was_closed_is_not_reached_any_more(provider: GGUFProvider) -> None:
    await provider.load()
    model = provider._pool.get(provider.default_model())
    assert model is not None
    reached: list[str] = []
    await model.apart(reached.append, "before")
    await provider.close()
    with pytest.raises(EngineClosed):
        await model.apart(reached.append, "behind")
    assert reached == ["before"]

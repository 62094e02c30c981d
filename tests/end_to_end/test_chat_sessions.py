"""Conversations with the bundled model that outgrow its context."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mofa_gguf import (
    AsyncLLMClient,
    ChatMessage,
    ContextLengthExceeded,
    GGUFConfig,
    GGUFProvider,
    TokenBudgetConfig,
)

N_CTX = 256
SETTINGS = {"system": "Your name is Echo.", "temperature": 0, "max_tokens": 24}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
async def client(cache: Path) -> AsyncIterator[AsyncLLMClient]:
    config = GGUFConfig(model="demo", cache_dir=cache, n_ctx=N_CTX, n_threads=1)
    async with AsyncLLMClient(GGUFProvider(config)) as opened:
        yield opened


async def n_prompt_tokens(client: AsyncLLMClient, messages: list[ChatMessage]) -> int:
    assert isinstance(client.provider, GGUFProvider)
    return await client.provider.count_tokens(messages)


async def test_the_model_sees_what_fits_and_the_session_keeps_all(client: AsyncLLMClient) -> None:
    session = client.session(**SETTINGS)
    for n in range(10):
        assert await session.send(f"What is {n} + 2?")
        assert session.last_response_metadata is not None
        sent = session.last_response_metadata.prompt_tokens
        assert sent <= 0.8 * N_CTX
        answer = session.messages()[-1]
        # The count before sending is the model's own count.
        assert await n_prompt_tokens(client, session.context()[:-1]) == sent
        assert answer.role.value == "assistant"
    assert len(session) == 20
    assert len(session.context()) < 21


async def test_what_the_model_no_longer_sees_is_summed_up_by_it(client: AsyncLLMClient) -> None:
    budget = TokenBudgetConfig(use_llm_summarize=True)
    session = client.session(**SETTINGS, token_budget=budget)
    while len(session.context()) > len(session):
        await session.send("Tell me about yourself.")
    system = session.context()[0].text_content()
    assert system is not None
    assert system.startswith("Your name is Echo.\n\n[Earlier in this conversation: ")
    assert await session.send("Hello!")


async def test_without_a_budget_the_models_refusal_is_what_makes_room(
    client: AsyncLLMClient,
) -> None:
    session = client.session(**SETTINGS, token_budget=None)
    for _ in range(12):
        assert await session.send("Tell me about yourself.")
    assert len(session) == 24
    assert len(session.context()) < 25
    with pytest.raises(ContextLengthExceeded):
        await session.send("word " * 300)
    assert len(session) == 24

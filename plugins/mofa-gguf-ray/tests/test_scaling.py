"""Between its bounds, a deployment has as many replicas as its requests need."""

from __future__ import annotations

import asyncio
import time

import pytest
from conftest import RayHere
from mofa_gguf_ray import RayProvider
from scenes import HELLO

from mofa_gguf.contract import ChatCompletionRequest

pytestmark = pytest.mark.ray

MODEL = {"n_ctx": 16384, "max_parallel": 4, "max_queue": 8}
AT_ONCE = {"up_after_s": 0, "down_after_s": 0}
"""Ray still averages over some seconds."""
WITHIN_S = 120.0


def answer_of(n_tokens: int) -> ChatCompletionRequest:
    """A request whose answer has so many tokens."""
    asked = ChatCompletionRequest.new().user_message("Go on.").with_temperature(1.0)
    return asked.with_options({"max_tokens": n_tokens, "ignore_eos": True})


async def ask_until_there_are(
    n_replicas: int, provider: RayProvider, *, n_clients: int, n_tokens: int
) -> None:
    """So many clients ask and ask again; each answer is whole."""
    enough = asyncio.Event()

    async def client() -> None:
        while not enough.is_set():
            answer = await provider.chat(answer_of(n_tokens))
            assert answer.usage is not None
            assert answer.usage.completion_tokens == n_tokens

    clients = [asyncio.create_task(client()) for _ in range(n_clients)]
    try:
        await until_there_are(n_replicas, provider, clients)
    finally:
        enough.set()
        await asyncio.gather(*clients)


async def until_there_are(
    n_replicas: int, provider: RayProvider, clients: list[asyncio.Task[None]] | None = None
) -> None:
    deadline_s = time.monotonic() + WITHIN_S
    while len(await provider.stats()) != n_replicas:
        assert time.monotonic() < deadline_s
        assert not any(client.done() for client in clients or ())
        await asyncio.sleep(0.2)


async def test_replicas_come_with_requests_and_go_without_ending_any(here: RayHere) -> None:
    bounds = {"min": 1, "max": 2, **AT_ONCE}
    config = here.config(replicas=bounds, routing="round-robin", retries_on_loss=0, **MODEL)
    async with RayProvider(config) as provider:
        await provider.load()
        assert len(await provider.stats()) == 1
        # As many as two take in, while there is one.
        await ask_until_there_are(2, provider, n_clients=config.limit, n_tokens=100)
        # As many as one takes in: those on the other are answered before it goes.
        await ask_until_there_are(1, provider, n_clients=3, n_tokens=3000)
        assert (await provider.chat(HELLO)).content()


async def test_where_there_may_be_none_the_first_request_brings_one(here: RayHere) -> None:
    bounds = {"min": 0, "max": 1, **AT_ONCE}
    async with RayProvider(here.config(replicas=bounds, **MODEL)) as provider:
        assert (await provider.chat(HELLO)).content()
        await until_there_are(0, provider)
        assert (await provider.chat(HELLO)).content()

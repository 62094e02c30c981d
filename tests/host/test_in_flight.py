"""Many conversations through a client, as they are answered."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mofa_gguf.contract import (
    ConfigError,
    NetworkError,
    RateLimited,
)
from mofa_gguf.host import AsyncLLMClient, LLMClient, in_flight
from mofa_gguf.host.testing import ScriptedProvider
from tests.support.uneven import Uneven

QUESTIONS = [f"question {n}" for n in range(20)]


async def test_every_conversation_is_answered_once_with_its_place() -> None:
    provider = Uneven()
    client = AsyncLLMClient(provider)
    items = [item async for item in client.batch(QUESTIONS, parallel=6, temperature=0)]
    assert {item.index: item.result().content() for item in items} == dict(enumerate(QUESTIONS))
    assert all(item.conversation == QUESTIONS[item.index] for item in items)
    assert provider.most_at_once == 6
    assert {request.temperature for request in provider.requests} == {0}


async def test_one_that_fails_has_its_error_and_the_rest_goes_on() -> None:
    client = AsyncLLMClient(ScriptedProvider(["one", NetworkError("gone"), "three"]))
    items = [item async for item in client.batch(["a", "b", {"role": "nobody"}, "d"], parallel=1)]
    assert [type(item.error) for item in items] == [
        type(None),
        NetworkError,
        ConfigError,
        type(None),
    ]
    with pytest.raises(NetworkError, match="gone"):
        items[1].result()


async def test_conversations_are_taken_as_they_are_needed_and_leaving_cancels() -> None:
    taken = []

    def endless() -> Iterator[str]:
        while True:
            taken.append(len(taken))
            yield "again"

    provider = ScriptedProvider(delay_s=0.001)
    answers = AsyncLLMClient(provider).batch(endless(), parallel=4)
    assert (await answers.__anext__()).result().content() == "again"
    await answers.aclose()
    assert len(taken) <= 8
    assert provider.n_open_streams == 0


async def test_requests_that_are_too_many_are_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_flight, "RATE_LIMIT_WAITS_S", (0.0, 0.0))
    client = AsyncLLMClient(ScriptedProvider([RateLimited("full"), "yes", *[RateLimited("x")] * 3]))
    items = [item async for item in client.batch(["a", "b"], parallel=1)]
    assert items[0].result().content() == "yes"
    assert isinstance(items[1].error, RateLimited)


async def test_what_the_iterable_raises_ends_the_batch_and_what_runs() -> None:
    def failing() -> Iterator[str]:
        yield "a"
        yield "b"
        raise LookupError("no more")

    provider = ScriptedProvider(delay_s=0.01)
    with pytest.raises(LookupError, match="no more"):
        async for _ in AsyncLLMClient(provider).batch(failing(), parallel=2):
            pass
    assert provider.n_open_streams == 0


def test_the_synchronous_client_does_the_same() -> None:
    with LLMClient(ScriptedProvider()) as client:
        found = {item.index: item.result().content() for item in client.batch(QUESTIONS)}
        assert found == dict(enumerate(QUESTIONS))
        with pytest.raises(ConfigError, match="parallel is at least 1"):
            list(client.batch(QUESTIONS, parallel=0))

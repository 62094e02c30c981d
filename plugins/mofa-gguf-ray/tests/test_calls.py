"""One request and its replica, with replicas that do as they are told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import pytest
from mofa_gguf_ray import RayConfig, RayProvider, ReplicaLost
from mofa_gguf_ray.calls import Patience, pieces_of
from mofa_gguf_ray.errors import Failure
from mofa_gguf_ray.wire import Delivery, Work
from ray.exceptions import ActorDiedError
from ray.serve.exceptions import BackPressureError

from mofa_gguf.contract import (
    ChatCompletionChunk,
    ChatCompletionRequest,
    ChunkChoice,
    ChunkDelta,
    LLMError,
    Other,
    RateLimited,
    Timeout,
)

TAKEN_IN = Delivery(replica="r1")
SILENCE = 10.0
"""Seconds until the next delivery: longer than anybody waits."""

Step = Delivery | Exception | float


class FakeResponse:
    """What Ray gives for a request: deliveries, pauses (seconds) and errors in their order."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self._steps = iter(steps)
        self.cancelled = False

    def __aiter__(self) -> AsyncIterator[Delivery]:
        return self

    async def __anext__(self) -> Delivery:
        for step in self._steps:
            if isinstance(step, float):
                await asyncio.sleep(step)
            elif isinstance(step, Exception):
                raise step
            else:
                return step
        raise StopAsyncIteration

    def cancel(self) -> None:
        self.cancelled = True


@dataclass
class FakeHandle:
    """A deployment's handle that answers each request with the next of its responses."""

    responses: list[FakeResponse]
    works: list[Work] = field(default_factory=list)
    app: str = "fake"

    @property
    def work(self) -> FakeHandle:
        return self

    @property
    def handle(self) -> FakeHandle:
        return self

    def options(self, *, stream: bool) -> FakeHandle:
        assert stream
        return self

    def remote(self, work: Work) -> FakeResponse:
        self.works.append(work)
        return self.responses[len(self.works) - 1]


async def told(*steps: Step) -> tuple[list[Any], LLMError | None, FakeResponse]:
    """The pieces that came, the error, and the response."""
    response = FakeResponse(steps)
    pieces: list[Any] = []
    waiting: set[Any] = set()
    stream = pieces_of(FakeHandle([response]), Work("chat"), Patience(0.2, 0.1), waiting)
    try:
        async with aclosing(stream) as found:
            async for piece in found:
                pieces.append(piece)
    except LLMError as error:
        return pieces, error, response
    finally:
        assert not waiting
    return pieces, None, response


async def test_pieces_come_in_order_and_signs_of_life_say_nothing() -> None:
    steps = (TAKEN_IN, Delivery(("a", "b")), Delivery(), Delivery(("c",), done=True))
    pieces, error, response = await told(*steps)
    assert (pieces, error, response.cancelled) == (["a", "b", "c"], None, False)


async def test_an_error_comes_after_the_pieces_before_it() -> None:
    failure = Failure("RateLimited", "too many", {"limit": 3, "retry_after_s": None})
    pieces, error, _ = await told(TAKEN_IN, Delivery(("a",), failure=failure))
    assert pieces == ["a"]
    assert isinstance(error, RateLimited)
    assert error.limit == 3


@pytest.mark.parametrize(
    "steps",
    [
        (TAKEN_IN, Delivery(("a",)), ActorDiedError()),
        (TAKEN_IN, Delivery(("a",)), SILENCE),
        (TAKEN_IN, Delivery(("a",))),
        (TAKEN_IN, Delivery(("a",)), 0.05, Delivery(), 0.05, Delivery(), SILENCE),
    ],
    ids=["it dies", "it falls silent", "it stops", "it goes on, then falls silent"],
)
async def test_a_replica_that_goes_is_lost(steps: tuple[Step, ...]) -> None:
    pieces, error, response = await told(*steps)
    assert pieces == ["a"]
    assert isinstance(error, ReplicaLost)
    assert (error.replica, error.n_pieces) == ("r1", 1)
    assert response.cancelled


async def test_signs_of_life_keep_a_slow_answer_alive() -> None:
    beats = [step for _ in range(5) for step in (0.05, Delivery())]
    pieces, error, _ = await told(TAKEN_IN, *beats, Delivery(("a",), done=True))
    assert (pieces, error) == (["a"], None)


async def test_whoever_is_taken_in_by_nobody_is_told_so() -> None:
    _, error, response = await told(SILENCE)
    assert isinstance(error, Timeout)
    assert error.timeout_s == 0.2
    assert response.cancelled


async def test_a_full_queue_of_rays_is_the_contracts_error() -> None:
    _, error, _ = await told(BackPressureError(9, 9))
    assert isinstance(error, RateLimited)


async def test_closing_early_cancels_on_the_replica() -> None:
    response = FakeResponse([TAKEN_IN, Delivery(("a",)), SILENCE])
    stream = pieces_of(FakeHandle([response]), Work("chat"), Patience(1, 1), set())
    assert await anext(stream) == "a"
    await stream.aclose()
    assert response.cancelled


async def test_cancelling_the_task_cancels_on_the_replica() -> None:
    response = FakeResponse([TAKEN_IN, SILENCE])
    stream = pieces_of(FakeHandle([response]), Work("chat"), Patience(20, 20), set())
    task = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert response.cancelled


class FakeSession:
    """A provider's hold on a fake deployment."""

    description = None

    def __init__(self, handle: FakeHandle) -> None:
        self.handle = handle
        self.open_responses: set[Any] = set()

    async def deployment(self) -> FakeHandle:
        return self.handle

    async def close(self) -> None:
        """Nothing was begun."""


def chunk(text: str) -> ChatCompletionChunk:
    choice = ChunkChoice(delta=ChunkDelta(content=text))
    return ChatCompletionChunk(id="1", created=1, model="m", choices=[choice])


LOST = [TAKEN_IN, ActorDiedError()]
ANSWERED = [Delivery(replica="r2"), Delivery((chunk("fine"),), done=True)]


def provider_on(*responses: Sequence[Step], **options: Any) -> tuple[RayProvider, FakeHandle]:
    provider = RayProvider(RayConfig(model="demo", **options))
    handle = FakeHandle([FakeResponse(steps) for steps in responses])
    provider._session = FakeSession(handle)  # type: ignore[assignment]
    return provider, handle


async def streamed(provider: RayProvider) -> str:
    request = ChatCompletionRequest.new().user_message("hello")
    chunks = [chunk async for chunk in provider.chat_stream(request)]
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)


async def test_a_request_of_which_nothing_was_given_goes_to_another_replica() -> None:
    provider, handle = provider_on(LOST, ANSWERED)
    assert await streamed(provider) == "fine"
    assert [work.avoid for work in handle.works] == [frozenset(), {"r1"}]


async def test_it_is_sent_again_as_often_as_is_said() -> None:
    for n in (0, 2):
        provider, handle = provider_on(*[LOST] * 3, ANSWERED, retries_on_loss=n)
        with pytest.raises(ReplicaLost):
            await streamed(provider)
        assert len(handle.works) == n + 1


async def test_an_answer_that_has_begun_is_never_begun_again() -> None:
    begun = [TAKEN_IN, Delivery((chunk("once "),)), ActorDiedError()]
    provider, handle = provider_on(begun, ANSWERED, retries_on_loss=5)
    with pytest.raises(ReplicaLost):
        await streamed(provider)
    assert len(handle.works) == 1


async def test_other_errors_are_not_sent_again() -> None:
    failed = [TAKEN_IN, Delivery(failure=Failure("Other", "no"))]
    provider, handle = provider_on(failed, ANSWERED, retries_on_loss=5)
    with pytest.raises(Other):
        await streamed(provider)
    assert len(handle.works) == 1


async def test_what_routers_read_does_not_travel() -> None:
    import pickle

    provider, handle = provider_on(ANSWERED)
    await streamed(provider)
    assert handle.works[0].prefixes
    assert pickle.loads(pickle.dumps(handle.works[0])).prefixes == ()

"""Replicas that die or fall silent: nobody hangs, nothing is said twice."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator

import pytest
from conftest import RayHere
from mofa_gguf_ray import RayProvider, ReplicaLost, ReplicaReport
from scenes import HELLO, LONG, sums

pytestmark = pytest.mark.ray


@pytest.fixture
async def mortal(here: RayHere) -> AsyncIterator[RayProvider]:
    """Two replicas of its own, which a test may kill."""
    async with RayProvider(here.config(replicas=2, lost_after_s=3)) as made:
        await made.load()
        yield made


async def at_work(provider: RayProvider) -> ReplicaReport:
    """The replica that works on the only request."""
    while True:
        for report in await provider.stats():
            if sums(report)[0]:
                return report
        await asyncio.sleep(0.02)


async def test_losing_replicas(mortal: RayProvider) -> None:
    """One after the other, over the same replicas: beginning them takes seconds."""
    await a_dead_replica_ends_a_stream_that_has_begun(mortal)
    await all_replicas_are_there(mortal)
    await an_answer_that_nobody_has_seen_is_computed_again(mortal)
    await all_replicas_are_there(mortal)
    await a_silent_replica_is_taken_for_lost(mortal)


async def a_dead_replica_ends_a_stream_that_has_begun(provider: RayProvider) -> None:
    stream = provider.chat_stream(LONG)
    said = (await anext(stream)).choices[0].delta
    victim = await at_work(provider)
    os.kill(victim.pid, signal.SIGKILL)
    with pytest.raises(ReplicaLost) as lost:
        async for _ in stream:
            pass
    assert not said.is_empty() or said.role
    assert lost.value.replica == victim.replica
    assert lost.value.n_pieces > 0
    assert (await provider.chat(HELLO)).content()


async def an_answer_that_nobody_has_seen_is_computed_again(provider: RayProvider) -> None:
    task = asyncio.create_task(provider.chat(LONG))
    victim = await at_work(provider)
    os.kill(victim.pid, signal.SIGKILL)
    response = await asyncio.wait_for(task, 60)
    assert len(response.content() or "") > 100


async def a_silent_replica_is_taken_for_lost(provider: RayProvider) -> None:
    stream = provider.chat_stream(LONG)
    await anext(stream)
    victim = await at_work(provider)
    os.kill(victim.pid, signal.SIGSTOP)
    try:
        began_s = time.monotonic()
        with pytest.raises(ReplicaLost, match="said nothing for 3 s"):
            async for _ in stream:
                pass
        assert time.monotonic() - began_s < 6
        # The others go on, and the silent one is passed over.
        answers = await asyncio.gather(*(provider.chat(HELLO) for _ in range(8)))
        assert len({answer.content() for answer in answers}) == 1
    finally:
        os.kill(victim.pid, signal.SIGCONT)


async def all_replicas_are_there(provider: RayProvider) -> None:
    """Serve puts another in a dead one's place."""
    deadline_s = time.monotonic() + 60
    while len(await provider.stats()) < 2:
        assert time.monotonic() < deadline_s
        await asyncio.sleep(0.2)

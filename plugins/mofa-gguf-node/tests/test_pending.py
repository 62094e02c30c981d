"""A request under way: every reply is heard once and in its order, whatever the wire does."""

from __future__ import annotations

import asyncio
import itertools
import random

import pytest
from mofa_gguf_node.pending import Pending

from mofa_gguf import NetworkError
from mofa_gguf.contract import LLMError


async def heard(pending: Pending, n: int) -> list[int]:
    """The numbers that the next ``n`` replies say."""
    replies = [await pending.next(1) for _ in range(n)]
    return [reply["n"] for reply in replies if not isinstance(reply, LLMError)]


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
async def test_replies_are_heard_in_the_order_of_their_numbers(order: tuple[int, ...]) -> None:
    pending = Pending("")
    for number in order:
        pending.take(number, {"op": "chunk", "n": number})
    assert await heard(pending, 4) == [0, 1, 2, 3]
    assert pending.n_heard == 4


@pytest.mark.parametrize("seed", range(5))
async def test_a_reply_that_comes_twice_is_heard_once(seed: int) -> None:
    pending, numbers = Pending(""), [*range(20), *range(20), *range(20)]
    random.Random(seed).shuffle(numbers)
    for number in numbers:
        pending.take(number, {"op": "chunk", "n": number})
    assert await heard(pending, 20) == list(range(20))
    with pytest.raises(asyncio.TimeoutError):
        await pending.next(0.001)


def test_a_gap_is_told_of_once_for_each_place() -> None:
    pending = Pending("")
    pending.take(0, {"op": "chunk"})
    assert not pending.misses()
    pending.take(2, {"op": "chunk"})
    assert pending.misses()
    pending.take(4, {"op": "chunk"})
    assert not pending.misses()
    pending.take(1, {"op": "chunk"})
    assert pending.misses()
    pending.take(3, {"op": "chunk"})
    assert not pending.misses()


def test_only_what_was_not_heard_of_outlives_its_node_and_that_not_for_ever() -> None:
    begun = Pending("")
    begun.take(0, {"op": "chunk"})
    assert not begun.outlives()
    fresh = Pending("", taken=True)
    assert fresh.outlives()
    assert not fresh.taken
    fresh.n_deaths = 2
    assert fresh.outlives()
    fresh.n_deaths = 3
    assert not fresh.outlives()


async def test_what_was_heard_before_a_failure_is_heard_first() -> None:
    pending = Pending("")
    pending.take(0, {"op": "chunk", "n": 0})
    pending.fail(NetworkError("gone"))
    assert await heard(pending, 1) == [0]
    assert isinstance(await pending.next(1), NetworkError)

"""Prefixes that gave way come back by copying."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mofa_gguf.engine.cache.parked import MAX_ENTRIES, Parked, ParkedPrefixes
from mofa_gguf.engine.cache.parking import IDLE_S, Parking
from mofa_gguf.engine.cache.policy import idle_cells_allowed
from mofa_gguf.engine.cache.radix import PrefixCache
from mofa_gguf.engine.cache.states import CellStates
from mofa_gguf.engine.engine import Engine
from mofa_gguf.engine.errors import DecodeFailed
from mofa_gguf.engine.options import EngineOptions
from mofa_gguf.engine.planning.sizing import parking_bytes
from mofa_gguf.engine.requests.request import FinishEvent, GenerationRequest, TextEvent
from mofa_gguf.engine.requests.sampling import SamplingOptions
from tests.engine.fake_memory import FakeMemory

EXACT = EngineOptions(
    n_threads=1, n_ctx=512, cache_type_k="f32", cache_type_v="f32", flash_attn="off"
)


class StatefulMemory(FakeMemory):
    """A pretended KV cache whose sequences can be saved: a state is the tokens, one byte each."""

    def __init__(self, n_cells: int) -> None:
        super().__init__(n_cells)
        self.broken = False

    def state_of(self, sequence: int) -> bytes:
        return bytes(self.tokens(sequence))

    def restore(self, sequence: int, state: bytes) -> None:
        if self.broken:
            raise DecodeFailed("no", status=-1)
        for position, token in enumerate(state):
            self.compute(sequence, position, token)


class Bench:
    """A small cache whose evicted prefixes are parked."""

    def __init__(self, *, n_cells: int = 120, max_bytes: int = 10_000, eager: bool = False) -> None:
        self.memory = StatefulMemory(n_cells)
        self.cache = PrefixCache(self.memory, n_cells=n_cells, n_sequences=16)
        self.parking = Parking(
            self.cache, CellStates(self.cache, self.memory), max_bytes=max_bytes, eager=eager
        )

    def run(self, prompt: list[int]) -> int:
        """A whole request; returns how many tokens had not to be computed."""
        self.parking.recall(prompt)
        lease = self.cache.open(prompt)
        assert lease is not None
        n_cached = lease.n_tokens
        assert self.cache.make_room(len(prompt) - n_cached)
        for token in prompt[n_cached:]:
            self.memory.compute(lease.sequence, lease.n_tokens, token)
            self.cache.extend(lease, [token])
        assert self.memory.tokens(lease.sequence) == tuple(prompt)
        self.cache.close(lease)
        self.cache.check()
        assert self.memory.n_used == self.cache.n_used
        return n_cached


def words(first: int, n: int = 60) -> list[int]:
    return [first, *(i % 200 for i in range(n - 1))]


def test_an_evicted_conversation_is_not_computed_again() -> None:
    bench = Bench()
    bench.run(words(1))
    bench.run(words(2))
    bench.run(words(3))  # the first gives way
    assert bench.cache.match(words(1)) == 0
    assert bench.run(words(1)) == 59
    assert bench.parking.n_recalled_tokens == 59


def test_a_part_of_a_parked_conversation_is_recalled_for_one_that_shares_it() -> None:
    bench = Bench()
    bench.run(words(1))
    bench.run(words(2))
    bench.run(words(3))
    assert bench.run([*words(1)[:40], 250, 251]) == 40


def test_short_prefixes_are_not_kept() -> None:
    bench = Bench(n_cells=40)
    bench.run(words(1, 20))
    bench.run(words(2, 20))
    bench.run(words(3, 20))
    assert len(bench.parking.prefixes) == 0


def test_nothing_is_kept_without_memory_for_it() -> None:
    bench = Bench(max_bytes=0)
    for first in (1, 2, 3):
        bench.run(words(first))
    assert len(bench.parking.prefixes) == 0
    assert bench.run(words(1)) == 0


def test_a_state_that_cannot_be_restored_is_dropped_and_computed() -> None:
    bench = Bench()
    for first in (1, 2, 3):
        bench.run(words(first))
    bench.memory.broken = True
    assert bench.run(words(1)) == 0
    bench.memory.broken = False
    assert not bench.parking.prefixes.covers(words(1)[:-1])


def idle_for(bench: Bench, seconds: float) -> None:
    """Let time pass, and the engine tidy up meanwhile."""
    at = max((node.used_at for node in bench.cache.idle_leaves()), default=0.0)
    for _ in range(50):
        bench.parking.tidy(now=at + seconds)


def test_idle_cells_move_out_where_they_slow_what_runs() -> None:
    bench = Bench(n_cells=1000, eager=True)
    for first in range(10):
        bench.run(words(first))
    idle_for(bench, 0)
    assert bench.cache.n_used == 600  # too fresh: the next turn may come at once
    idle_for(bench, IDLE_S + 1)
    assert bench.parking.due_in() is None
    assert bench.cache.n_used <= idle_cells_allowed(n_active=0, n_latest=60)
    assert bench.cache.match(words(9)) == 60, "the last conversation is in nobody's way"
    assert bench.run(words(0)) == 59
    lazy = Bench(n_cells=1000)
    for first in range(10):
        lazy.run(words(first))
    idle_for(lazy, 1000)
    assert lazy.cache.n_used == 600


def test_what_was_copied_gives_way_to_a_prompt_that_does_not_go_on_from_it() -> None:
    bench = Bench(n_cells=1000, eager=True)
    bench.run(words(1))
    bench.run(words(2))
    bench.parking.make_way([words(3)])
    assert bench.cache.n_used == 120  # not copied yet
    idle_for(bench, IDLE_S + 1)
    bench.parking.make_way([[*words(2), 7]])
    assert bench.cache.match(words(1)) == 0
    assert bench.cache.match(words(2)) == 60
    assert bench.run(words(1)) == 59


def test_what_was_copied_gives_way_to_a_prompt_with_hardly_more_than_the_first_token() -> None:
    bench = Bench(eager=True)
    bench.run(words(1))
    idle_for(bench, IDLE_S + 1)
    bench.parking.make_way([[*words(1)[:5], *words(2)]])
    assert bench.memory.n_used == 0
    assert bench.run(words(1)) == 59


def test_a_conversation_that_went_on_is_copied_anew() -> None:
    bench = Bench(n_cells=1000, eager=True)
    bench.run(words(1))
    idle_for(bench, IDLE_S + 1)
    longer = [*words(1), *range(100, 160)]
    bench.run(longer)
    bench.parking.make_way([words(3)])
    assert bench.cache.match(longer) == len(longer)
    idle_for(bench, IDLE_S + 1)
    bench.parking.make_way([words(3)])
    assert bench.cache.match(longer) == 0
    assert bench.run(longer) == len(longer) - 1


@given(
    prompts=st.lists(
        st.tuples(st.integers(0, 5), st.integers(2, 90), st.integers(0, 3)), max_size=40
    ),
    max_bytes=st.sampled_from([0, 100, 300, 5000]),
)
def test_whatever_is_parked_and_recalled_every_request_reads_its_own_prompt(
    prompts: list[tuple[int, int, int]], max_bytes: int
) -> None:
    bench = Bench(max_bytes=max_bytes, eager=True)
    for first, n_tokens, end in prompts:
        prompt = [*words(first, n_tokens), 240 + end]
        bench.parking.make_way([prompt])
        bench.run(prompt)
        idle_for(bench, end)
        assert bench.parking.prefixes.n_bytes <= max_bytes


def test_the_least_recently_used_prefix_is_dropped_first() -> None:
    kept = ParkedPrefixes(140)
    for first in (1, 2):
        kept.put(Parked([first, 0], b"x" * 50))
    assert kept.best([1, 5]) is not None
    kept.touch(kept.best([1, 0]))  # type: ignore[arg-type]
    kept.put(Parked([3, 0], b"x" * 50))
    assert kept.covers([1])
    assert not kept.covers([2])
    assert kept.n_tokens == 4


def test_a_longer_conversation_takes_the_place_of_its_beginning() -> None:
    kept = ParkedPrefixes(1000)
    kept.put(Parked([1, 2], b"ab"))
    kept.put(Parked([1, 2, 3], b"abc"))
    assert (len(kept), kept.n_bytes) == (1, 3 + 3 * 8)
    kept.put(Parked([9] * 5, b"x" * 2000))  # larger than all there is
    assert (len(kept), kept.n_bytes) == (1, 3 + 3 * 8)


def test_no_more_prefixes_are_kept_than_can_be_looked_through() -> None:
    kept = ParkedPrefixes(10**9)
    for first in range(2 * MAX_ENTRIES):
        kept.put(Parked([first, 0], b"x"))
    assert len(kept) == MAX_ENTRIES
    assert kept.covers([2 * MAX_ENTRIES - 1])
    assert not kept.covers([MAX_ENTRIES - 1])


@pytest.mark.parametrize(("available", "expected"), [(-5, 0), (10**9, 10**8), (10**12, 2 * 2**30)])
def test_how_much_memory_prefixes_may_take(available: int, expected: int) -> None:
    assert parking_bytes(available) == expected


def answer(engine: Engine, tokens: list[int]) -> tuple[list[int], FinishEvent]:
    request = GenerationRequest(tokens, SamplingOptions(temperature=0), max_tokens=8)
    *events, last = engine.submit(request)
    assert isinstance(last, FinishEvent)
    return [t for e in events if isinstance(e, TextEvent) for t in e.tokens], last


def test_agents_that_do_not_fit_together_take_turns_without_computing_again(
    tiny_model: Path,
) -> None:
    rng = random.Random(1)
    agents = [[rng.randrange(97, 122) for _ in range(200)] for _ in range(4)]
    engine = Engine.load(tiny_model, EXACT)
    try:
        first = [answer(engine, tokens)[0] for tokens in agents]
        again = [answer(engine, tokens) for tokens in agents]
        assert [tokens for tokens, _ in again] == first
        assert all(end.n_cached_tokens == 199 for _, end in again)
        assert engine._worker is not None
        engine._worker.scheduler.check()
    finally:
        engine.close()

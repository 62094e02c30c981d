"""What conversations that ran together left scattered comes to lie together between their turns."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mofa_gguf.engine.cache.memory import State
from mofa_gguf.engine.cache.prefix_tree import Lease
from mofa_gguf.engine.cache.radix import PrefixCache
from mofa_gguf.engine.cache.regrouping import MIN_CELLS, Regrouping, scratch_bytes
from mofa_gguf.engine.engine import Engine
from mofa_gguf.engine.errors import DecodeFailed
from mofa_gguf.engine.options import EngineOptions
from mofa_gguf.engine.requests.request import GenerationRequest, TextEvent
from mofa_gguf.engine.requests.sampling import SamplingOptions
from tests.engine.fake_memory import FakeMemory

ROOM = 10**6


class MovingMemory(FakeMemory):
    """Gives out the first free cell, as llama.cpp does; states are cells as JSON."""

    def __init__(self, n_cells: int) -> None:
        super().__init__(n_cells)
        self.n_to_break = 0
        self.n_unreadable = 0

    def new_cell(self) -> int:
        used = set(self.cell_of.values())
        return next(cell for cell in range(self.n_cells) if cell not in used)

    def state_size(self, sequence: int) -> int:
        return len(self._state(sequence))

    def state_of(self, sequence: int, into: memoryview | None = None) -> State:
        if self.n_unreadable:
            self.n_unreadable -= 1
            raise DecodeFailed("no", status=-1)
        state = self._state(sequence)
        if into is None:
            return state
        into[: len(state)] = state
        return into[: len(state)]

    def restore(self, sequence: int, state: State) -> None:
        if self.n_to_break:
            self.n_to_break -= 1
            raise DecodeFailed("no", status=-1)
        for position, content in json.loads(bytes(state)):
            cell = self.new_cell()
            self.cell_of[sequence, position] = cell
            self.content[cell] = tuple(content)

    def runs(self, sequence: int) -> int:
        """How many runs of neighbours a sequence's cells form."""
        cells = [cell for (s, _), cell in sorted(self.cell_of.items()) if s == sequence]
        return 1 + sum(after != before + 1 for before, after in pairwise(cells))

    def _state(self, sequence: int) -> bytes:
        cells = [(p, self.content[c]) for (s, p), c in self.cell_of.items() if s == sequence]
        return json.dumps(sorted(cells)).encode()


class Bench:
    """A cache of conversations that run together, token by token in turns."""

    def __init__(self, n_cells: int = 2000, max_bytes: int = ROOM) -> None:
        self.memory = MovingMemory(n_cells)
        self.cache = PrefixCache(self.memory, n_cells=n_cells, n_sequences=40)
        self.regrouping = Regrouping(self.cache, self.memory, max_bytes=max_bytes)

    def run(self, prompts: Sequence[Sequence[int]]) -> None:
        """All prompts at once: each step computes a token of each."""
        leases: list[tuple[Sequence[int], Lease]] = []
        for prompt in prompts:
            lease = self.cache.open(prompt)
            assert lease is not None
            leases.append((prompt, lease))
        while todo := [(p, at) for p, at in leases if at.n_tokens < len(p)]:
            for prompt, lease in todo:
                token = prompt[lease.n_tokens]
                self.memory.compute(lease.sequence, lease.n_tokens, token)
                self.cache.extend(lease, [token])
        for prompt, lease in leases:
            assert self.memory.tokens(lease.sequence) == tuple(prompt)
            self.cache.close(lease)
        self.check()

    def check(self) -> None:
        self.cache.check()
        assert self.memory.n_used == self.cache.n_used

    def n_runs(self) -> list[int]:
        """Runs of neighbours in each branch."""
        leaves = self.cache.idle_leaves()
        return [self.memory.runs(leaf.holder) for leaf in leaves if leaf.holder is not None]


def conversation(first: int, n_tokens: int) -> list[int]:
    return [first, *range(1000, 1000 + n_tokens - 1)]


def test_conversations_that_ran_together_lie_together_afterwards() -> None:
    bench = Bench()
    bench.run([conversation(first, 40) for first in range(4)])
    assert bench.n_runs() == [40] * 4
    bench.regrouping.regroup()
    bench.check()
    assert bench.n_runs() == [1] * 4
    assert bench.regrouping.n_moved == 160


def test_the_next_turn_moves_only_what_is_new() -> None:
    bench = Bench()
    bench.run([conversation(first, 40) for first in range(4)])
    bench.regrouping.regroup()
    bench.run([conversation(first, 60) for first in range(4)])
    bench.regrouping.regroup()
    bench.check()
    assert bench.regrouping.n_moved == 160 + 80
    assert bench.n_runs() == [2] * 4


def test_cells_come_down_to_where_others_have_gone() -> None:
    bench = Bench()
    bench.run([conversation(9, 500)])
    bench.run([conversation(first, 40) for first in range(4)])
    bench.cache.evict(bench.cache.idle_leaves()[0])
    bench.regrouping.regroup()
    bench.check()
    assert max(bench.memory.cell_of.values()) == bench.cache.n_used - 1


def test_a_shared_beginning_stays_where_it_is() -> None:
    bench = Bench()
    system = list(range(100, 150))
    bench.run([system])
    before = [bench.memory.cell_of[key] for key in sorted(bench.memory.cell_of)]
    bench.run([[*system, *conversation(first, 30)] for first in range(4)])
    bench.regrouping.regroup()
    bench.check()
    for leaf in bench.cache.idle_leaves():
        assert leaf.holder is not None
        assert [bench.memory.cell_of[leaf.holder, p] for p in range(50)] == before
        assert len(bench.memory.tokens(leaf.holder)) == 80


@pytest.mark.parametrize("n_tokens", [MIN_CELLS // 2 - 1, 200])
def test_nothing_moves_for_little_or_for_one(n_tokens: int) -> None:
    bench = Bench()
    n_conversations = 2 if n_tokens < MIN_CELLS else 1
    bench.run([conversation(first, n_tokens) for first in range(n_conversations)])
    bench.regrouping.regroup()
    assert bench.regrouping.n_moved == 0


def test_what_does_not_fit_into_the_scratch_memory_stays() -> None:
    bench = Bench()
    bench.run([conversation(first, 40) for first in range(4)])
    one = bench.memory.state_size(bench.cache.idle_leaves()[0].holder or 0)
    bench.regrouping = Regrouping(bench.cache, bench.memory, max_bytes=2 * one)
    bench.regrouping.regroup()
    bench.check()
    assert bench.regrouping.n_moved == 80
    none = Regrouping(bench.cache, bench.memory, max_bytes=0)
    none.regroup()
    assert none.n_moved == 0


def test_cells_that_cannot_be_put_back_are_forgotten() -> None:
    bench = Bench()
    bench.run([conversation(first, 40) for first in range(4)])
    bench.memory.n_to_break = 1
    parked: list[object] = []
    bench.cache.before_evict = parked.append
    bench.regrouping.regroup()
    bench.check()
    assert not parked, "there is nothing to keep"
    assert sorted(bench.cache.match(conversation(first, 40)) for first in range(4)) == [
        0,
        *[40] * 3,
    ]


def test_cells_that_cannot_be_read_stay_where_they_lie() -> None:
    bench = Bench()
    bench.run([conversation(first, 40) for first in range(4)])
    bench.memory.n_unreadable = 1
    bench.regrouping.regroup()
    bench.check()
    assert bench.regrouping.n_moved == 3 * 40
    assert all(bench.cache.match(conversation(first, 40)) == 40 for first in range(4))


def test_nothing_gives_way_to_moving() -> None:
    bench = Bench()
    bench.cache = PrefixCache(bench.memory, n_cells=2000, n_sequences=4)
    bench.regrouping = Regrouping(bench.cache, bench.memory, max_bytes=ROOM)
    bench.run([conversation(first, 40) for first in range(4)])
    bench.regrouping.regroup()
    assert bench.regrouping.n_moved == 0
    assert bench.cache.n_used == 160


@given(
    turns=st.lists(
        st.lists(
            st.tuples(st.integers(0, 3), st.integers(1, 60), st.integers(0, 2)),
            min_size=1,
            max_size=4,
        ),
        max_size=8,
    ),
    max_bytes=st.sampled_from([0, 3000, ROOM]),
    n_to_break=st.integers(0, 2),
    n_unreadable=st.integers(0, 2),
)
def test_whatever_moves_every_request_reads_its_own_prompt(
    turns: list[list[tuple[int, int, int]]], max_bytes: int, n_to_break: int, n_unreadable: int
) -> None:
    bench = Bench(n_cells=4000, max_bytes=max_bytes)
    bench.memory.n_to_break, bench.memory.n_unreadable = n_to_break, n_unreadable
    for turn in turns:
        bench.run([[*conversation(first, n), 2000 + end] for first, n, end in turn])
        bench.regrouping.regroup()
        bench.check()
        for leaf in bench.cache.idle_leaves():
            assert leaf.holder is not None
            assert len(bench.memory.tokens(leaf.holder)) == leaf.end


@pytest.mark.parametrize(
    ("n_bytes", "expected"), [(0, 0), (400, 100), (2**40, 64 * 2**20)], ids=str
)
def test_how_much_is_set_aside_for_moving(n_bytes: int, expected: int) -> None:
    assert scratch_bytes(n_bytes) == expected


def engine_with(path: Path, prefix_memory: int) -> Engine:
    options = EngineOptions(
        n_threads=1,
        n_ctx=2048,
        cache_type_k="f32",
        cache_type_v="f32",
        flash_attn="on",
        prefix_memory=prefix_memory,
    )
    return Engine.load(path, options)


def turns(engine: Engine) -> Iterator[list[list[int]]]:
    """Four conversations of three turns, side by side; the answers of each turn."""
    rng = random.Random(3)
    told: list[list[int]] = [[] for _ in range(4)]
    for _ in range(3):
        told = [[*tokens, *(rng.randrange(97, 122) for _ in range(30))] for tokens in told]
        sampling = SamplingOptions(temperature=0)
        streams = [engine.submit(GenerationRequest(t, sampling, max_tokens=16)) for t in told]
        answers = [[t for e in s if isinstance(e, TextEvent) for t in e.tokens] for s in streams]
        told = [[*tokens, *answer] for tokens, answer in zip(told, answers, strict=True)]
        yield answers


def test_answers_are_those_of_cells_that_never_moved(tiny_model: Path) -> None:
    with closing(engine_with(tiny_model, 2**28)) as moving:
        moved = list(turns(moving))
        assert moving._worker is not None
        assert moving._worker.regrouping.n_moved > 0
        moving._worker.scheduler.check()
    with closing(engine_with(tiny_model, 0)) as resting:
        assert list(turns(resting)) == moved
        assert resting._worker is not None
        assert resting._worker.regrouping.n_moved == 0

"""The scheduler against a pretended memory: thousands of arrivals, cancellations, evictions."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mofa_gguf.engine.cache.radix import PrefixCache
from mofa_gguf.engine.planning.sizing import BLOCK, TILE
from mofa_gguf.engine.scheduling.policy import (
    fits,
    prefill_budget,
    should_wait,
    worth_adding,
    worth_leaving,
)
from mofa_gguf.engine.scheduling.scheduler import Guess, Piece, Scheduler, Task
from tests.engine.fake_memory import FakeMemory


class Machine:
    """A scheduler whose model says, after any tokens, a token that depends on all of them."""

    def __init__(
        self,
        *,
        n_cells: int = 200,
        n_sequences: int = 12,
        n_batch: int = 32,
        max_parallel: int = 8,
        shares: bool = True,
        guess: Guess | None = None,
    ) -> None:
        self.memory = FakeMemory(n_cells)
        cache = PrefixCache(self.memory, n_cells=n_cells, n_sequences=n_sequences, shares=shares)
        self.scheduler = Scheduler(cache, n_batch=n_batch, max_parallel=max_parallel)
        self.limits: dict[int, int] = {}
        self.done: list[Task] = []
        self.n_computed = 0
        self.n_batch = n_batch
        self.guess = guess
        self.n_steps = 0

    def add(self, prompt: list[int], n_answer: int = 3, priority: int = 0) -> Task:
        task = Task(list(prompt), priority=priority)
        self.limits[id(task)] = len(prompt) + n_answer
        self.scheduler.add(task)
        return task

    def step(self, tokens_per_s: float | None = None) -> list[Piece]:
        pieces = self.scheduler.plan(tokens_per_s=tokens_per_s, guess=self.guess)
        assert sum(len(piece.tokens) for piece in pieces) <= self.n_batch
        for piece in pieces:
            for offset, token in enumerate(piece.tokens):
                self.memory.compute(piece.sequence, piece.start + offset, token)
            self.n_computed += len(piece.tokens)
        self.scheduler.computed(pieces)
        self.n_steps += 1
        for piece in pieces:
            if piece.is_last:
                self._advance(piece)
        self.check()
        return pieces

    def run(self, max_steps: int = 3000) -> None:
        for _ in range(max_steps):
            if not self.scheduler.waiting and not self.scheduler.running:
                return
            assert self.step(), "nothing moves although requests wait"
        raise AssertionError("requests are stuck")

    def check(self) -> None:
        self.scheduler.check()
        assert self.memory.n_used == self.scheduler.cache.n_used
        for task in self.scheduler.running:
            assert task.lease is not None
            told = self.memory.tokens(task.lease.sequence)
            assert told == tuple(task.tokens[: task.n_computed])

    def _advance(self, piece: Piece) -> None:
        """The task's next token, and those after it while they are the guessed ones."""
        task, guessed = piece.task, list(piece.guessed)
        while True:
            over = len(task.tokens) == self.limits[id(task)]
            if over:
                break
            task.tokens.append(next_token(task.tokens))
            if not guessed or guessed.pop(0) != task.tokens[-1]:
                break
        self.scheduler.settle(piece)
        if over:
            self.scheduler.finish(task)
            self.done.append(task)


def next_token(tokens: list[int]) -> int:
    return hash(tuple(tokens)) % 3


def expected(prompt: list[int], n_answer: int) -> list[int]:
    tokens = list(prompt)
    for _ in range(n_answer):
        tokens.append(next_token(tokens))
    return tokens


def test_requests_that_arrive_together_compute_their_common_prefix_once() -> None:
    machine = Machine(n_cells=1000)
    system = [9] * 60
    tasks = [machine.add([*system, 1, i], n_answer=4) for i in range(8)]
    machine.run()
    assert len(machine.done) == 8
    assert [t.n_cached for t in tasks] == [0] + [61] * 7
    # The prefix and its "1" once, then each one's own token and answer.
    assert machine.n_computed == 61 + 8 * (1 + 4)


def test_the_next_turn_computes_only_what_is_new() -> None:
    machine = Machine()
    first = machine.add([1, 2, 3, 4], n_answer=5)
    machine.run()
    before = machine.n_computed
    second = machine.add([*first.tokens, 7, 7], n_answer=1)
    machine.run()
    assert second.n_cached == len(first.tokens)
    assert machine.n_computed - before == 2 + 1


def test_a_long_prompt_does_not_stall_running_streams() -> None:
    machine = Machine(n_cells=1000, n_batch=64)
    stream = machine.add([1], n_answer=40)
    machine.step()
    machine.add([2] * 600)
    for _ in range(10):
        before = len(stream.tokens)
        pieces = machine.step(tokens_per_s=66)
        assert len(stream.tokens) == before + 1
        assert sum(len(p.tokens) for p in pieces if p.task is not stream) <= 40


def test_a_starved_request_gives_way_and_still_gets_its_answer() -> None:
    machine = Machine(n_cells=60, max_parallel=4)
    prompts = [[i, 5, 6, 7] for i in range(4)]
    for prompt in prompts:
        machine.add(prompt, n_answer=40)
    machine.run()
    for task, prompt in zip(sorted(machine.done, key=lambda t: t.arrival), prompts, strict=True):
        assert task.tokens == expected(prompt, 40)


def test_one_request_may_fill_the_whole_context() -> None:
    machine = Machine(n_cells=64)
    machine.add([3] * 20, n_answer=2)
    machine.run()
    machine.add([1] * 50, n_answer=13)
    machine.run()
    assert len(machine.done) == 2


def test_higher_priority_goes_first() -> None:
    machine = Machine(max_parallel=1)
    late = machine.add([1, 1], priority=0)
    urgent = machine.add([2, 2], priority=5)
    machine.run()
    assert machine.done == [urgent, late]


def test_nobody_overtakes_a_request_that_waits_for_room() -> None:
    machine = Machine(n_cells=100)
    machine.add([1] * 60, n_answer=10)
    machine.step()
    large = machine.add([2] * 60, n_answer=2)
    small = machine.add([3], n_answer=2)
    while small.lease is None:
        machine.step()
    assert large.started


def test_without_sharing_every_prompt_is_computed() -> None:
    machine = Machine(shares=False)
    for _ in range(3):
        machine.add([1, 2, 3, 4, 5], n_answer=2)
        machine.run()
    assert machine.n_computed == 3 * 7


def test_after_a_reset_everything_is_computed_again() -> None:
    machine = Machine()
    tasks = [machine.add([i, 2, 3], n_answer=6) for i in range(3)]
    for _ in range(3):
        machine.step()
    machine.memory.cell_of.clear()
    assert machine.scheduler.reset() == tasks
    machine.run()
    assert all(t.tokens == expected(t.tokens[:3], 6) for t in tasks)


def knowing(n_ahead: int) -> Guess:
    """Guesses that are always right."""

    def guess(tasks: Sequence[Task], budget: int) -> list[list[int]]:
        n = min(n_ahead, budget // len(tasks))
        return [expected(task.tokens, n)[len(task.tokens) :] for task in tasks]

    return guess


def guessing(chance: random.Random) -> Guess:
    """Guesses of any length that are right as often as not."""

    def guess(tasks: Sequence[Task], budget: int) -> list[list[int]]:
        guesses = []
        for task in tasks:
            n = chance.randrange(min(6, budget + 1))
            budget -= n
            right = expected(task.tokens, n)[len(task.tokens) :]
            guesses.append([t if chance.random() < 0.7 else chance.randrange(3) for t in right])
        return guesses

    return guess


def test_right_guesses_save_steps_and_change_nothing() -> None:
    plain, ahead = Machine(), Machine(guess=knowing(4))
    tasks = [machine.add([1, 2, 3], n_answer=30) for machine in (plain, ahead)]
    plain.run()
    ahead.run()
    assert tasks[0].tokens == tasks[1].tokens == expected([1, 2, 3], 30)
    assert ahead.n_steps < plain.n_steps / 2


def test_guesses_do_not_push_a_running_request_out() -> None:
    with_guesses = Machine(n_cells=64, max_parallel=2, guess=guessing(random.Random(1)))
    tasks = [with_guesses.add([i] * 20, n_answer=12) for i in range(2)]
    while not all(task.started for task in tasks):
        with_guesses.step()
    while with_guesses.scheduler.running:
        before = len(with_guesses.scheduler.running), len(with_guesses.done)
        with_guesses.step()
        after = len(with_guesses.scheduler.running), len(with_guesses.done)
        assert sum(before) == sum(after)


def test_nothing_is_guessed_for_memory_that_cannot_drop_tokens() -> None:
    machine = Machine(shares=False, guess=knowing(4))
    machine.add([1, 2, 3], n_answer=10)
    while machine.scheduler.waiting or machine.scheduler.running:
        assert all(piece.n_drafted == 0 for piece in machine.step())


prompts = st.lists(st.integers(0, 2), min_size=1, max_size=40)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(prompts, st.integers(0, 15), st.integers(0, 2)), max_size=25),
    st.integers(60, 150),
    st.integers(1, 6),
    st.integers(4, 40),
    st.booleans(),
    st.integers(0, 2**32),
)
def test_every_request_ends_with_its_own_answer_whatever_happens(
    arrivals: list[tuple[list[int], int, int]],
    n_cells: int,
    max_parallel: int,
    n_batch: int,
    guesses: bool,
    seed: int,
) -> None:
    chance = random.Random(seed)
    machine = Machine(
        guess=guessing(chance) if guesses else None,
        n_cells=n_cells,
        n_batch=max(n_batch, max_parallel),
        max_parallel=max_parallel,
        n_sequences=max_parallel + 3,
    )
    wanted: list[tuple[Task, list[int]]] = []
    cancelled: set[int] = set()
    for prompt, n_answer, priority in arrivals:
        task = machine.add(prompt, n_answer, priority)
        wanted.append((task, expected(prompt, n_answer)))
        for _ in range(chance.randrange(3)):
            machine.step()
        active = [*machine.scheduler.running, *machine.scheduler.waiting]
        if active and chance.random() < 0.2:
            victim = chance.choice(active)
            cancelled.add(id(victim))
            machine.scheduler.finish(victim, keep=chance.random() < 0.5)
            machine.check()
    machine.run()
    for task, tokens in wanted:
        if id(task) not in cancelled:
            assert task in machine.done
            assert task.tokens == tokens


@pytest.mark.parametrize(
    ("n_decoding", "speed", "budget"),
    [(0, None, 512), (0, 10.0, 512), (4, None, 508), (4, 500.0, 300), (4, 1.0, 32), (512, 9e9, 0)],
)
def test_prefill_budget(n_decoding: int, speed: float | None, budget: int) -> None:
    assert prefill_budget(n_decoding=n_decoding, n_batch=512, tokens_per_s=speed) == budget


def test_waiting_pays_only_for_a_prefix_worth_it() -> None:
    wait: Callable[..., bool] = should_wait
    long = list(range(100))
    assert wait(long, n_cached=0, in_progress=[long])
    assert not wait(long, n_cached=90, in_progress=[long])
    assert not wait(long, n_cached=0, in_progress=[[0, 1, 2]])
    assert not wait(long, n_cached=0, in_progress=[])


def test_a_request_alone_always_fits() -> None:
    assert fits(n_needed=100, n_promised=0, n_available=1, n_running=0)
    assert not fits(n_needed=100, n_promised=0, n_available=100, n_running=1)
    assert fits(n_needed=10, n_promised=10, n_available=100, n_running=1)


def test_a_batch_that_lacks_one_token_of_a_block_is_filled() -> None:
    assert [n for n in range(1, 17) if worth_adding(n, at_once=BLOCK)] == [3, 7, 11, 15]
    assert not any(worth_adding(n, at_once=0) for n in range(200))


def test_a_batch_that_takes_as_long_as_a_tile_more_is_filled() -> None:
    assert [n for n in range(1, 97) if worth_adding(n, at_once=TILE)] == [
        *range(29, 32),
        *range(52, 64),
        *range(84, 96),
    ]
    assert all((n + worth_adding(n, at_once=TILE)) % TILE == 0 for n in (29, 52, 95))


@pytest.mark.parametrize(
    ("sizes", "beside", "left"),
    [
        ([], 4, []),
        ([32], 0, [0]),
        ([33], 0, [1]),
        ([40], 0, [8]),
        ([41], 0, [0]),
        ([65], 0, [1]),
        ([65], 1, [2]),
        ([65, 65, 65, 65], 0, [1, 1, 1, 1]),
        ([65, 65, 65, 69], 0, [1, 1, 1, 5]),
        ([70, 70], 0, [0, 0]),
        ([60, 40], 0, [0, 4]),
        ([94, 2], 4, [0, 0]),
        ([30], 4, [2]),
    ],
)
def test_what_a_tile_would_be_computed_for_is_left(
    sizes: list[int], beside: int, left: list[int]
) -> None:
    assert worth_leaving(sizes, beside=beside, at_once=TILE) == left
    assert worth_leaving(sizes, beside=beside, at_once=BLOCK) == [0] * len(sizes)


@given(sizes=st.lists(st.integers(1, 200), max_size=5), beside=st.integers(0, 20))
def test_little_is_left_of_a_step_and_something_is_done(sizes: list[int], beside: int) -> None:
    left = worth_leaving(sizes, beside=beside, at_once=TILE)
    assert sum(left) <= 8
    assert all(0 <= n < size for n, size in zip(left, sizes, strict=True))
    if any(left):
        assert (beside + sum(sizes) - sum(left)) % TILE == 0


def test_prompts_are_computed_in_whole_tiles_and_the_rest_a_step_later() -> None:
    memory = FakeMemory(1000)
    cache = PrefixCache(memory, n_cells=1000, n_sequences=8)
    scheduler = Scheduler(cache, n_batch=512, max_parallel=4, at_once=TILE)
    for first in range(4):
        scheduler.add(Task([first, *range(100, 164)]))
    sizes = []
    for _ in range(2):
        pieces = scheduler.plan()
        for piece in pieces:
            for at, token in enumerate(piece.tokens):
                memory.compute(piece.sequence, piece.start + at, token)
        scheduler.computed(pieces)
        for piece in pieces:
            if piece.is_last:
                piece.task.tokens.append(9)
        scheduler.check()
        sizes.append([(len(piece.tokens), piece.is_last) for piece in pieces])
    assert sizes == [
        [(64, False)] * 4,
        [(1, True)] * 4,
    ]

"""Whether a draft model pays, and what it does with its cells: without a model."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mofa_gguf.engine.cache.radix import PrefixCache
from mofa_gguf.engine.drafting.drafter import Drafter
from mofa_gguf.engine.drafting.drafts import Drafted, Feed, Likely, Wish
from mofa_gguf.engine.errors import DecodeFailed
from mofa_gguf.engine.scheduling.scheduler import Task
from mofa_gguf.engine.speculation.draft_policy import (
    TRIAL_SHARE,
    TRIAL_START_S,
    DraftAcceptance,
    TrialAccount,
    best_depth,
    chunk_size,
    going_on,
    worth_catching_up,
)
from tests.engine.fake_memory import FakeMemory


def linear(fixed: float, each: float) -> Callable[[int], float]:
    return lambda n_tokens: fixed + each * n_tokens


MEMORY_BOUND = linear(1.0, 0.02)
"""Reading the weights takes the time."""

chances = st.floats(0.01, 0.99)
costs = st.builds(linear, st.floats(0.001, 2.0), st.floats(0.0, 1.0))


@settings(deadline=None)
@given(chance=chances, n_decoding=st.integers(1, 32), target=costs, draft=costs, data=st.data())
def test_a_depth_is_only_chosen_where_it_promises_to_be_faster(
    chance: float,
    n_decoding: int,
    target: Callable[[int], float],
    draft: Callable[[int], float],
    data: st.DataObject,
) -> None:
    n_drafting = data.draw(st.integers(1, n_decoding))
    depth = best_depth(
        chance,
        n_decoding=n_decoding,
        n_drafting=n_drafting,
        n_max=8,
        seconds=target,
        draft_seconds=draft,
    )
    assert 0 <= depth.n_tokens <= 8
    assert (depth.saved_s > 0) == (depth.n_tokens > 0)
    right = sum(chance**i for i in range(1, depth.n_tokens + 1))
    took = target(n_decoding + depth.n_tokens * n_drafting) + depth.n_tokens * draft(n_drafting)
    plain, ahead = target(n_decoding) / n_decoding, took / (n_decoding + n_drafting * right)
    assert ahead <= plain * (1 + 1e-9)
    assert depth.saved_s == pytest.approx(n_decoding * (plain - ahead), abs=1e-6)


@settings(deadline=None)
@given(low=chances, high=chances, target=costs, draft=costs)
def test_better_guesses_never_save_less(
    low: float, high: float, target: Callable[[int], float], draft: Callable[[int], float]
) -> None:
    low, high = sorted((low, high))
    saved = [
        best_depth(
            each, n_decoding=2, n_drafting=2, n_max=8, seconds=target, draft_seconds=draft
        ).saved_s
        for each in (low, high)
    ]
    assert saved[0] <= saved[1] + 1e-9


def depth_of(chance: float, draft_s: float) -> int:
    return best_depth(
        chance,
        n_decoding=1,
        n_drafting=1,
        n_max=8,
        seconds=MEMORY_BOUND,
        draft_seconds=linear(draft_s, 0.0),
    ).n_tokens


def test_cheap_and_right_drafts_go_deep_and_dear_or_wrong_ones_do_not_begin() -> None:
    assert depth_of(0.95, 0.05) == 8
    assert depth_of(0.95, 1.0) == 0
    assert depth_of(0.05, 0.05) == 0
    assert 0 < depth_of(0.7, 0.2) < depth_of(0.95, 0.05)


def test_nothing_is_drafted_for_its_own_sake_before_costs_are_known() -> None:
    for target, draft in ((lambda n: None, MEMORY_BOUND), (MEMORY_BOUND, lambda n: None)):
        depth = best_depth(
            0.99, n_decoding=1, n_drafting=1, n_max=8, seconds=target, draft_seconds=draft
        )
        assert depth.n_tokens == 0


def test_a_draft_goes_on_for_those_that_are_likely_while_that_is_worth_a_step() -> None:
    cheap, dear = linear(0.05, 0.0), linear(2.0, 0.0)
    assert going_on([0.9, 0.05, 0.5], 0.8, token_s=1.0, draft_seconds=cheap) == [0, 2]
    assert going_on([0.9, 0.05, 0.5], 0.8, token_s=1.0, draft_seconds=dear) == []


def test_acceptance_follows_what_was_seen_at_each_confidence() -> None:
    acceptance = DraftAcceptance()
    assert not acceptance.trusted
    for _ in range(100):
        acceptance.note(0.2, right=False)
        acceptance.note(0.95, right=True)
    assert acceptance.trusted
    assert acceptance.chance(0.1) < 0.1
    assert acceptance.chance(0.99) > 0.9
    assert 0.4 < acceptance.mean < 0.6


def test_catching_up_must_pay_within_the_answer() -> None:
    def worth(n_behind: int, n_most: int = 1000, saved_s: float = 0.01) -> bool:
        return worth_catching_up(
            n_behind, n_generated=0, n_most=n_most, saved_s=saved_s, tokens_per_s=1000
        )

    assert worth(500)
    assert not worth(2000)
    assert not worth(500, n_most=10)
    assert not worth(500, saved_s=0.0)


def test_what_is_given_for_first_trials_is_taken_back_once_they_have_failed() -> None:
    account = TrialAccount()
    assert account.covers(TRIAL_START_S)
    account.close_first()
    assert not account.covers(0.001)
    account.earn(1.0)
    assert account.covers(TRIAL_SHARE)
    account.close_first()
    assert account.covers(TRIAL_SHARE)


def test_chunks_do_not_stall_running_streams() -> None:
    assert chunk_size(None, 512) == 64
    assert chunk_size(1000.0, 512) == 100
    assert chunk_size(10.0, 512) == 32
    assert chunk_size(1e6, 512) == 512


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0.0, 0.5), st.floats(0.0, 0.5)), max_size=200))
def test_trials_take_a_small_share_of_the_time_however_often_they_fail(
    steps: list[tuple[float, float]],
) -> None:
    account, worked, tried = TrialAccount(), 0.0, 0.0
    for step_s, trial_s in steps:
        account.earn(step_s)
        worked += step_s
        if account.covers(trial_s):
            account.spend(trial_s)
            tried += trial_s
    assert tried <= TRIAL_START_S + TRIAL_SHARE * worked + 1e-9


class FakeDecoder:
    """Says the next token as a rule would, and holds the cells to the rules of a KV cache."""

    n_batch = 48
    n_tokens = 50

    def __init__(self, memory: FakeMemory, rule: Callable[[Sequence[int]], int]) -> None:
        self.closed = False
        self.fails = False
        self._memory = memory
        self._rule = rule

    def decode(self, feeds: Sequence[Feed], *, wanted: bool) -> Sequence[Likely]:
        assert 0 < sum(len(feed.tokens) for feed in feeds) <= self.n_batch
        if self.fails:
            raise DecodeFailed("it fails")
        for feed in feeds:
            for i, token in enumerate(feed.tokens):
                self._memory.compute(feed.sequence, feed.start + i, token)
        if not wanted:
            return ()
        return [Likely(self._rule(self._memory.tokens(feed.sequence)), 0.8) for feed in feeds]

    def clear(self) -> None:
        for sequence, position in list(self._memory.cell_of):
            self._memory.remove(sequence, position, -1)

    def close(self) -> None:
        self.closed = True


def rule(tokens: Sequence[int]) -> int:
    return (7 * sum(tokens[-3:]) + len(tokens)) % 50


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), right=st.sampled_from([0.0, 0.5, 1.0]))
def test_cells_are_those_of_the_answers_whatever_comes(seed: int, right: float) -> None:
    """Arrivals, wrong and right guesses, preemption, ends: the books hold after every step."""
    chance = random.Random(seed)
    memory = FakeMemory(160)
    cache = PrefixCache(memory, n_cells=160, n_sequences=6)
    decoder = FakeDecoder(memory, rule)
    drafter = Drafter(decoder, cache, n_ctx=140, end_ids={49})
    tasks: list[Task] = []
    n_right = n_drafted = 0
    for _ in range(60):
        if len(tasks) < 4 and chance.random() < 0.3:
            common = list(range(chance.randrange(60)))
            tasks.append(Task([*common, chance.randrange(50), chance.randrange(50)]))
        running = [task for task in tasks if chance.random() < 0.9]
        drafter.keep_only(running)
        wishes = [Wish(t, chance.randrange(9), chance.random() < 0.5) for t in running]
        budget = chance.randrange(20)
        drafts = drafter.guess(
            wishes, n_decoding=max(1, len(running)), budget=budget, seconds=MEMORY_BOUND
        )
        assert sum(len(draft.tokens) for draft in drafts) <= budget
        for wish, draft in zip(wishes, drafts, strict=True):
            assert len(draft.tokens) == len(draft.chances) <= wish.n_max
            assert list(draft.chances) == sorted(draft.chances, reverse=True)
            n_drafted += len(draft.tokens)
            for guessed in draft.tokens:
                assert guessed == rule(wish.task.tokens), "computed from another text"
                if chance.random() >= right:
                    break
                wish.task.tokens.append(guessed)
                n_right += 1
            wish.task.tokens.append(chance.randrange(50))
        drafter.check()
        assert memory.n_used == cache.n_used
        for task in [t for t in tasks if chance.random() < 0.05 or len(t.tokens) > 130]:
            tasks.remove(task)
            drafter.release(task)
    for task in tasks:
        drafter.release(task)
    drafter.check()
    assert memory.n_used == cache.n_used == cache.n_evictable
    assert not drafter.failed
    assert bool(n_right) <= bool(n_drafted)


def test_a_sequence_far_behind_catches_up_in_chunks_and_is_drafted_for_then() -> None:
    memory = FakeMemory(400)
    drafter = Drafter(
        FakeDecoder(memory, rule),
        PrefixCache(memory, n_cells=400, n_sequences=4),
        n_ctx=400,
        end_ids=(),
    )
    task = Task(list(range(40)) * 5)
    wish, n_calls = Wish(task, 4, forced=True), 0
    while not (draft := ask(drafter, wish)).tokens:
        n_calls += 1
        assert n_calls < 10
        drafter.check()
    assert n_calls == 4  # of 48 tokens each: 8 are left
    assert list(draft.tokens) == follow(task.tokens, 4)


def test_a_failed_decoder_is_closed_and_nothing_is_drafted_any_more() -> None:
    memory = FakeMemory(100)
    decoder = FakeDecoder(memory, rule)
    drafter = Drafter(
        decoder, PrefixCache(memory, n_cells=100, n_sequences=4), n_ctx=100, end_ids=()
    )
    task, other = Task([1, 2, 3]), Task([4, 5, 6])
    assert ask(drafter, Wish(task, 4, forced=True)).tokens
    decoder.fails = True
    assert not ask(drafter, Wish(other, 4, forced=True)).tokens
    assert decoder.closed
    decoder.fails = False
    n_steps = drafter.n_steps
    assert not ask(drafter, Wish(task, 4, forced=True)).tokens
    drafter.release(task)
    drafter.release(other)
    assert drafter.n_steps == n_steps


def test_a_draft_ends_where_an_answer_would() -> None:
    memory = FakeMemory(100)
    tokens = [1, 2, 3]
    end = follow(tokens, 3)[-1]
    drafter = Drafter(
        FakeDecoder(memory, rule),
        PrefixCache(memory, n_cells=100, n_sequences=4),
        n_ctx=100,
        end_ids={end},
    )
    drafted = ask(drafter, Wish(Task(tokens), 8, forced=True)).tokens
    assert drafted[-1] == end
    assert end not in drafted[:-1]


def test_tokens_that_the_draft_model_does_not_have_keep_a_sequence_from_being_drafted() -> None:
    memory = FakeMemory(100)
    drafter = Drafter(
        FakeDecoder(memory, rule),
        PrefixCache(memory, n_cells=100, n_sequences=4),
        n_ctx=100,
        end_ids=(),
    )
    assert not ask(drafter, Wish(Task([1, 50, 3]), 4, forced=True)).tokens
    assert drafter.n_steps == 0


def ask(drafter: Drafter, wish: Wish) -> Drafted:
    return drafter.guess([wish], n_decoding=1, budget=64, seconds=MEMORY_BOUND)[0]


def follow(tokens: Sequence[int], n: int) -> list[int]:
    text = list(tokens)
    for _ in range(n):
        text.append(rule(text))
    return text[len(tokens) :]

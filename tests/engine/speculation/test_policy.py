"""Whether guessing pays, from values alone."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from mofa_gguf.engine.speculation.policy import Acceptance, Guesser, StepCost, share


def linear(fixed: float, each: float) -> Callable[[int], float]:
    return lambda n_tokens: fixed + each * n_tokens


MEMORY_BOUND = linear(1.0, 0.02)
"""Reading the weights takes the time: a GPU, or a large model."""
COMPUTE_BOUND = linear(0.0, 1.0)
"""Each token takes its own time: nothing to be had."""


def test_sure_guesses_are_taken_where_width_is_cheap() -> None:
    sure = [0.95**i for i in range(1, 17)]
    assert share([sure], n_decoding=1, budget=64, seconds=MEMORY_BOUND) == [16]
    assert share([sure], n_decoding=1, budget=5, seconds=MEMORY_BOUND) == [5]


def test_no_guess_is_taken_where_each_token_takes_its_own_time() -> None:
    assert share([[1.0] * 16], n_decoding=1, budget=64, seconds=COMPUTE_BOUND) == [0]


def test_unlikely_guesses_are_not_taken() -> None:
    assert share([[0.05, 0.01]], n_decoding=1, budget=64, seconds=linear(1.0, 0.1)) == [0]


def test_the_dearer_a_wider_step_the_fewer_guesses() -> None:
    falling = [0.8**i for i in range(1, 33)]
    counts = [
        share([falling], n_decoding=1, budget=64, seconds=linear(1.0, each))[0]
        for each in (0.01, 0.05, 0.2, 0.5, 9.0)
    ]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > counts[2] > 0
    assert counts[-1] == 0


def test_the_likelier_sequence_gets_more_of_a_shared_budget() -> None:
    likely, unlikely = [0.95**i for i in range(1, 9)], [0.5**i for i in range(1, 9)]
    counts = share([unlikely, likely], n_decoding=2, budget=8, seconds=MEMORY_BOUND)
    assert sum(counts) == 8
    assert counts[1] > counts[0]


def test_with_many_sequences_running_guesses_are_worth_less() -> None:
    falling, cost = [0.8**i for i in range(1, 9)], linear(1.0, 0.15)

    def taken(n_sequences: int) -> float:
        chances = [falling] * n_sequences
        counts = share(chances, n_decoding=n_sequences, budget=200, seconds=cost)
        return sum(counts) / n_sequences

    assert taken(1) > taken(8) > taken(32)


def test_nothing_is_guessed_before_a_step_was_measured() -> None:
    assert share([[1.0]], n_decoding=1, budget=9, seconds=StepCost().seconds) == [0]


def test_chances_follow_what_was_seen_at_each_length_of_agreement() -> None:
    acceptance = Acceptance()
    before = acceptance.chance(3), acceptance.chance(20)
    for _ in range(50):
        acceptance.note(3, right=False)
        acceptance.note(20, right=True)
    assert acceptance.chance(3) < 0.1 < before[0]
    assert acceptance.chance(20) > 0.98 > before[1]
    chances = list(acceptance.chances(20, 20))
    assert chances == sorted(chances, reverse=True)
    assert chances[0] == acceptance.chance(20)
    assert list(acceptance.chances(3, 20)) == []  # hardly ever right: not worth a thought


def test_acceptance_forgets() -> None:
    acceptance = Acceptance()
    for _ in range(500):
        acceptance.note(3, right=False)
    for _ in range(60):
        acceptance.note(3, right=True)
    assert acceptance.chance(3) > 0.9


def test_the_cost_of_a_step_lies_between_measured_ones() -> None:
    cost = StepCost()
    for _ in range(9):
        cost.note(1, 0.1)
        cost.note(9, 0.5)
    assert cost.seconds(1) == pytest.approx(0.1)
    assert cost.seconds(5) == pytest.approx(0.3)
    assert cost.seconds(9) == pytest.approx(0.5)


def test_one_slow_step_does_not_decide() -> None:
    cost = StepCost()
    for _ in range(9):
        cost.note(4, 0.1)
    cost.note(4, 60.0)
    took = cost.seconds(4)
    assert took is not None
    assert took < 0.2


def test_a_width_that_was_long_not_measured_is_forgotten() -> None:
    cost = StepCost()
    cost.note(1, 0.1)
    cost.note(4, 9.0)
    for _ in range(600):
        cost.note(1, 0.1)
    took = cost.seconds(4)
    assert took is not None
    assert took < 0.2


def answer(guesser: Guesser, tokens: list[int], take: Callable[[int], int]) -> None:
    """Let a text grow by 200 tokens, each ``take`` of what was guessed."""
    for _ in range(200):
        guess = guesser.guess(tokens, 8)
        tokens.append(take(guess.tokens[0] if guess.tokens else 0))


def test_a_guesser_learns_without_being_made_use_of() -> None:
    chance = random.Random(0)
    right, wrong = Guesser(), Guesser()
    past = [chance.randrange(9) for _ in range(300)]
    answer(right, list(past), lambda guessed: guessed)
    answer(wrong, list(past), lambda guessed: (guessed + 1 + chance.randrange(7)) % 9)
    assert right.acceptance.chance(32) > 0.98
    assert wrong.acceptance.chance(3) < 0.1


def test_a_guesser_guesses_no_further_than_asked() -> None:
    tokens = [1, 2, 3, 4] * 5
    assert len(Guesser().guess(tokens, 3).tokens) == 3
    assert Guesser().guess(tokens, 0).tokens == ()

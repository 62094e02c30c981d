"""How often guesses come true."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mofa_gguf.engine.speculation.hit_rate import HitRate


def test_before_a_guess_was_seen_the_prior_counts() -> None:
    assert HitRate(0.7, weight=2, memory=0.95).chance == pytest.approx(0.7)


def test_the_prior_counts_for_its_weight() -> None:
    rate = HitRate(0.5, weight=2, memory=1)
    rate.note(right=True)
    rate.note(right=False)
    rate.note(right=True)
    assert rate.chance == pytest.approx((2 + 0.5 * 2) / (3 + 2))


def test_the_latest_guesses_count_most() -> None:
    first_right, last_right = (HitRate(0.5, weight=2, memory=0.9) for _ in range(2))
    for n in range(20):
        first_right.note(right=n < 10)
        last_right.note(right=n >= 10)
    assert last_right.chance > 0.5 > first_right.chance


@given(st.floats(0, 1), st.floats(0.5, 1), st.lists(st.booleans(), max_size=200))
def test_it_is_a_probability_whatever_comes(
    prior: float, memory: float, rights: list[bool]
) -> None:
    rate = HitRate(prior, weight=2, memory=memory)
    for right in rights:
        rate.note(right=right)
    assert -1e-9 <= rate.chance <= 1 + 1e-9

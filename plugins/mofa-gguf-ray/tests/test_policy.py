"""Which replica a request goes to, told without any."""

from __future__ import annotations

import random

import pytest
from mofa_gguf_ray.policy import CHARS_PER_REQUEST, PrefixTable, preferred
from mofa_gguf_ray.prefixes import Prefix

W = CHARS_PER_REQUEST


@pytest.mark.parametrize(
    ("n_chars", "held", "loads", "chosen"),
    [
        # Nothing is known of the prompt: Ray decides.
        (1000, {}, {"a": 0, "b": 0}, None),
        (1000, {"gone": 900}, {"a": 0, "b": 0}, None),
        # It sticks, also when the replica is somewhat busier.
        (5000, {"a": 4900}, {"a": 0, "b": 0}, "a"),
        (5000, {"a": 4900}, {"a": 9, "b": 0}, "a"),
        (5000, {"a": 100, "b": 4900}, {"a": 1, "b": 3}, "b"),
        # Of two that have it, the less busy.
        (5000, {"a": 4900, "b": 4900}, {"a": 3, "b": 1}, "b"),
        # Overloaded: it would be computed sooner elsewhere.
        (5000, {"a": 4900}, {"a": 12, "b": 0}, None),
        (200, {"a": 190}, {"a": 2, "b": 0}, None),
        # A request just answered may still be counted.
        (200, {"a": 190}, {"a": 1, "b": 0}, "a"),
        # All its slots are in use, and another has one.
        (90_000, {"a": 89_000}, {"a": 16, "b": 15}, None),
        (90_000, {"a": 89_000}, {"a": 16, "b": 16}, "a"),
        # The only one.
        (200, {"a": 100}, {"a": 40}, "a"),
    ],
)
def test_a_prompt_goes_where_its_beginning_is_unless_that_is_overloaded(
    n_chars: int, held: dict[str, int], loads: dict[str, int], chosen: str | None
) -> None:
    assert preferred(n_chars, held, loads, slots=16) == chosen


def test_no_choice_ever_costs_more_than_a_request_more_than_the_cheapest() -> None:
    chance = random.Random(7)
    for _ in range(2000):
        names = "abcd"[: chance.randint(1, 4)]
        loads = {name: chance.randint(0, 20) for name in names}
        n_chars = chance.randint(1, 20_000)
        held = {name: chance.randint(0, n_chars) for name in names if chance.random() < 0.5}
        chosen = preferred(n_chars, held, loads, slots=16)
        if chosen is None:
            continue
        price = {name: n_chars - held.get(name, 0) + loads[name] * W for name in names}
        free = [name for name in names if loads[name] < 16] or list(names)
        assert held[chosen] > 0
        assert chosen in free
        assert price[chosen] <= min(price[name] for name in free) + W


def prompt(*keys: int) -> tuple[Prefix, ...]:
    """A prompt whose n-th prefix has 100 n characters."""
    return tuple(Prefix(key, 100 * n) for n, key in enumerate(keys, start=1))


def test_the_table_tells_the_longest_beginning_of_each_replica() -> None:
    table = PrefixTable()
    table.add(prompt(1, 2, 3), "a")
    table.add(prompt(1, 9), "b")
    assert table.held(prompt(1, 2, 3, 4)) == {"a": 300, "b": 100}
    assert table.held(prompt(5, 2, 3)) == {"a": 300}
    assert table.held(()) == {}


def test_the_table_forgets_the_oldest_and_the_ends_before_the_beginnings() -> None:
    table = PrefixTable(max_keys=4)
    table.add(prompt(1, 2, 3), "a")
    table.add(prompt(7, 8), "b")
    assert len(table) == 4
    assert table.held(prompt(1, 2, 3)) == {"a": 200}
    assert table.held(prompt(7, 8)) == {"b": 200}


def test_the_table_forgets_what_lost_replicas_had() -> None:
    table = PrefixTable()
    table.add(prompt(1, 2), "a")
    table.add(prompt(1), "b")
    table.keep_only(frozenset("b"))
    assert table.held(prompt(1, 2)) == {"b": 100}
    table.keep_only(frozenset())
    assert len(table) == 0

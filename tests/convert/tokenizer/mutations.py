"""Random damage to files: what a broken download, a careless edit or an attacker may leave."""

from __future__ import annotations

import random
from typing import Any

# JSON's values of every kind, among them those that break what counts on sizes, signs and types.
_LEAVES: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        0,
        1,
        -1,
        255,
        2**31,
        2**32,
        2**63,
        2**70,
        -(2**63),
        10**400,
        1e308,
        -0.0,
        0.5,
    ),
    *("", "a", " ", "\0", "\u2581", "<unk>", "\ud800", "\U0010ffff", "x" * 10_000, "(", "(a*)*b"),
    *([], {}, [[]], [0], ["a", "b"], {"type": "Sequence"}, {"a": {"b": {}}}, [None] * 100),
)


def mutate_json(value: Any, rng: random.Random, depth: int = 0) -> Any:
    """Replace, drop, double or swap one part of a JSON value, found by walking down at random."""
    if isinstance(value, dict) and value and rng.random() > 0.1:
        keys = list(value)
        key = keys[rng.randrange(len(keys))]
        chance = rng.random()
        if chance < 0.08:
            return {k: v for k, v in value.items() if k != key}
        if chance < 0.14:
            return {**value, str(_leaf(rng)): value[key]}
        if chance < 0.2:
            return {**value, key: value[keys[rng.randrange(len(keys))]]}
        return {**value, key: mutate_json(value[key], rng, depth + 1)}
    if isinstance(value, list) and value and rng.random() > 0.1:
        at = rng.randrange(len(value))
        chance = rng.random()
        if chance < 0.08:
            return [*value[:at], *value[at + 1 :]]
        if chance < 0.16:
            return [*value[:at], value[at], *value[at:]]
        if chance < 0.22:
            return value[:at]
        return [*value[:at], mutate_json(value[at], rng, depth + 1), *value[at + 1 :]]
    if isinstance(value, str) and value and rng.random() < 0.4:
        at = rng.randrange(len(value))
        return (
            value[:at]
            + rng.choice(("", "\0", "(", "\u2581", "\ud800", "\\", "+*"))
            + value[at + 1 :]
        )
    return _leaf(rng) if depth else value


def _leaf(rng: random.Random) -> Any:
    return rng.choice(_LEAVES)


def mutate_bytes(data: bytes, rng: random.Random) -> bytes:
    """Change, cut out, double or put in a few bytes, in one or two places."""
    for _ in range(rng.choice((1, 1, 2))):
        at = rng.randrange(len(data) + 1)
        length = rng.choice((1, 1, 1, 2, 4, 16, 200))
        kind = rng.randrange(5)
        if kind == 0:
            data = data[:at] + rng.randbytes(length) + data[at + length :]
        elif kind == 1:
            data = data[:at] + data[at + length :]
        elif kind == 2:
            data = data[:at] + data[at : at + length] + data[at:]
        elif kind == 3:
            data = (
                data[:at] + rng.choice((b"\0", b"\xff", b"\n", b"\x80", b" ")) * length + data[at:]
            )
        else:
            data = data[:at]
        if not data:
            return rng.randbytes(length)
    return data

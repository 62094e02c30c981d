"""A short form of the fuzz campaign of tools/fuzz_convert.py, which tells how the long one went."""

from __future__ import annotations

import random

import pytest

from tools.fuzz_convert import BOUNDS, campaign, spoil_bytes, spoil_json


def test_spoilt_checkpoints_are_refused_by_name_or_converted() -> None:
    tally = campaign(range(10_000, 10_200), quantization="F32", verify=False)
    assert tally.failures == []
    assert tally.n_cases == 200
    assert tally.n_refused > 100
    assert tally.n_passed > 10
    assert tally.n_bytes_grown < BOUNDS.n_bytes


@pytest.mark.parametrize("seed", range(30))
def test_a_case_is_decided_by_its_number_and_changes_something(seed: int) -> None:
    value = {"a": 1, "b": [1, 2, {"c": "x"}], "d": {"e": 2.5, "f": None}}
    assert repr(spoil_json(value, random.Random(seed))) == repr(
        spoil_json(value, random.Random(seed))
    )
    data = bytes(range(50))
    assert spoil_bytes(data, random.Random(seed)) == spoil_bytes(data, random.Random(seed))
    assert any(spoil_bytes(data, random.Random(seed + i)) != data for i in range(3))

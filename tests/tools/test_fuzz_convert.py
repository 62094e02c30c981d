"""A short form of the fuzz campaign of tools/fuzz_convert.py, which tells how the long one went."""

from __future__ import annotations

import random

import pytest

from tools import fuzz_convert
from tools.fuzz_convert import campaign, spoil_bytes, spoil_json


def test_spoilt_checkpoints_are_refused_by_name_or_converted() -> None:
    tally = campaign(range(10_000, 10_200), quantization="F32", verify=False)
    assert tally.failures == []
    assert tally.n_cases == 200
    assert tally.n_refused > 100
    assert tally.n_converted > 10
    assert tally.n_bytes_grown < fuzz_convert.LIMIT_BYTES


@pytest.mark.parametrize("seed", range(30))
def test_a_case_is_decided_by_its_number_and_changes_something(seed: int) -> None:
    value = {"a": 1, "b": [1, 2, {"c": "x"}], "d": {"e": 2.5, "f": None}}
    assert repr(spoil_json(value, random.Random(seed))) == repr(
        spoil_json(value, random.Random(seed))
    )
    data = bytes(range(50))
    assert spoil_bytes(data, random.Random(seed)) == spoil_bytes(data, random.Random(seed))
    assert any(spoil_bytes(data, random.Random(seed + i)) != data for i in range(3))


def test_a_child_that_dies_or_raises_costs_one_case(monkeypatch: pytest.MonkeyPatch) -> None:
    tally = fuzz_convert.Tally()
    waiting = [7, 8]

    class Dead:
        exitcode = -6
        pid = 0

        def join(self) -> None: ...

        def kill(self) -> None: ...

    class Reports:
        messages = [("begin", 7, 0.0)]  # noqa: RUF012

        def poll(self, seconds: float) -> bool:
            return True

        def recv(self) -> object:
            if not self.messages:
                raise EOFError
            return self.messages.pop(0)

    fuzz_convert._follow(Dead(), Reports(), waiting, tally, say=False)  # type: ignore[arg-type]
    assert waiting == [8]
    assert tally.failures == ["case 7: the process died (-6)"]
    fuzz_convert._count(tally, ("failed", 8, "ValueError", 2**31, 1.0), 0.5)
    assert len(tally.failures) == 3

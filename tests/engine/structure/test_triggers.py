"""Which trigger a text has, and what follows it."""

from __future__ import annotations

import pytest

from mofa_gguf.engine.structure.answer_plan import Trigger
from mofa_gguf.engine.structure.constraint import Constraint
from mofa_gguf.engine.structure.triggers import TriggerFinder


def _no_constraint() -> Constraint:
    raise AssertionError("finding a trigger makes no constraint")


def trigger(pattern: bytes, *, at_start: bool = False) -> Trigger:
    return Trigger(pattern, _no_constraint, at_start=at_start)


TAG = trigger(rb"<call>")
NAMED = trigger(rb"<(f|g)=(\w+)>")
BARE = trigger(rb"\{", at_start=True)


@pytest.mark.parametrize(
    ("text", "begins", "expected"),
    [
        (b"well, <call>{", False, (b"{", TAG)),
        (b"well, <call", False, None),
        (b"<f=x> and <call>", False, (b" and <call>", NAMED)),
        (b"<call> and <f=x>", False, (b" and <f=x>", TAG)),
        (b' \n{"a"', True, (b'"a"', BARE)),
        (b"{<call>", True, (b"<call>", BARE)),
        (b"{<call>", False, (b"", TAG)),
        (b"a {", True, None),
        (b"", True, None),
    ],
)
def test_the_first_trigger_is_found(
    text: bytes, begins: bool, expected: tuple[bytes, Trigger] | None
) -> None:
    # Groups within a pattern do not shift which trigger is meant.
    assert TriggerFinder([NAMED, BARE, TAG]).find(text, begins=begins) == expected


def test_without_triggers_nothing_is_found() -> None:
    assert TriggerFinder([]).find(b"<call>", begins=True) is None


def test_the_window_holds_what_a_long_trigger_began() -> None:
    assert TriggerFinder([TAG]).window == 64
    assert TriggerFinder([trigger(b"x" * 100)]).window == 200

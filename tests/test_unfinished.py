"""What a process undoes that ends in the middle of its work."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from mofa_gguf.unfinished import Unfinished, Whole, end


class Ended(BaseException):
    """The process would have ended."""


@pytest.fixture
def codes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    codes: list[int] = []

    def leave(code: int) -> None:
        codes.append(code)
        raise Ended

    monkeypatch.setattr(os, "_exit", leave)
    monkeypatch.setattr("mofa_gguf.unfinished._ending", [])
    return codes


def test_what_is_unfinished_is_undone_last_first(codes: list[int]) -> None:
    undone: list[str] = []

    def undo(name: str) -> Callable[[], None]:
        return lambda: undone.append(name)

    with Unfinished(undo("finished")):
        pass
    with Unfinished(undo("first")), Unfinished(undo("second")), pytest.raises(Ended):
        end(130)
    assert (undone, codes) == (["second", "first"], [130])


def test_one_that_fails_keeps_no_other_from_being_undone(codes: list[int]) -> None:
    undone: list[str] = []

    def fail() -> None:
        raise PermissionError

    with Unfinished(lambda: undone.append("first")), Unfinished(fail), pytest.raises(Ended):
        end(143)
    assert (undone, codes) == (["first"], [143])


def test_a_block_that_is_done_whole_ends_first(codes: list[int]) -> None:
    done: list[str] = []

    def work() -> None:
        with Whole():
            with Whole():
                end(130)
                done.append("inner")
            done.append("outer")
        done.append("behind")

    with pytest.raises(Ended):
        work()
    assert (done, codes) == (["inner", "outer"], [130])

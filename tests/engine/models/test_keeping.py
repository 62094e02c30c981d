"""Memory that threads read stays until the last of them is out."""

from __future__ import annotations

import threading
from contextlib import ExitStack

import pytest

from mofa_gguf.engine.errors import EngineClosed
from mofa_gguf.engine.models.keeping import Keeping

SECONDS = 60.0


def test_where_nobody_is_within_it_is_freed_at_once_and_once() -> None:
    keeping, freed = Keeping(), list[str]()
    with keeping.within():
        pass
    keeping.end(lambda: freed.append("first"))
    keeping.end(lambda: freed.append("second"))
    assert freed == ["first"]


def test_the_end_waits_for_all_who_are_within() -> None:
    keeping, freed = Keeping(), threading.Event()
    closer = threading.Thread(target=keeping.end, args=(freed.set,), kwargs={"timeout_s": SECONDS})
    with ExitStack() as stack:
        stack.enter_context(keeping.within())
        with keeping.within():
            closer.start()
            assert not freed.wait(0.02)
        assert not freed.wait(0.02)
    closer.join(SECONDS)
    assert freed.is_set()


def test_who_stays_too_long_frees_it_on_leaving() -> None:
    keeping, freed = Keeping(), list[str]()
    with keeping.within():
        keeping.end(lambda: freed.append("late"), timeout_s=0)
        assert freed == []
    assert freed == ["late"]


def test_nobody_comes_in_any_more_once_the_end_was_asked_for() -> None:
    keeping = Keeping()
    with keeping.within():
        keeping.end(lambda: None, timeout_s=0)
        with pytest.raises(EngineClosed), keeping.within():
            pass


def test_an_error_within_is_a_way_out() -> None:
    keeping, freed = Keeping(), list[str]()
    with pytest.raises(ValueError, match="no"), keeping.within():
        raise ValueError("no")
    keeping.end(lambda: freed.append("freed"), timeout_s=0)
    assert freed == ["freed"]

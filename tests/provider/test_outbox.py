"""Answers that are told once the lock under which they were decided is given back."""

from __future__ import annotations

import threading
from concurrent.futures import Future

import pytest

from mofa_gguf.provider.outbox import Outbox


def test_nothing_is_told_before_it_is_sent() -> None:
    outbox, future = Outbox(), Future[int]()
    outbox.give(future, 1)
    assert not future.done()
    outbox.send()
    assert future.result(0) == 1


def test_answers_are_told_in_their_order_and_once() -> None:
    outbox, told = Outbox(), list[str]()
    first, second = Future[int](), Future[int]()
    first.add_done_callback(lambda _: told.append("first"))
    second.add_done_callback(lambda _: told.append("second"))
    outbox.fail(first, ValueError("no"))
    outbox.give(second, 2)
    outbox.send()
    outbox.send()
    assert told == ["first", "second"]
    with pytest.raises(ValueError, match="no"):
        first.result(0)


@pytest.mark.parametrize("fails", [False, True])
def test_a_cancelled_future_is_left_alone(fails: bool) -> None:
    outbox, future = Outbox(), Future[int]()
    if fails:
        outbox.fail(future, ValueError("no"))
    else:
        outbox.give(future, 1)
    assert future.cancel()
    outbox.send()
    assert future.cancelled()


def test_a_callback_may_use_the_outbox_from_another_thread() -> None:
    outbox, first, second = Outbox(), Future[int](), Future[int]()

    def answer_second(_: Future[int]) -> None:
        def work() -> None:
            outbox.give(second, 2)
            outbox.send()

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        thread.join(60)

    first.add_done_callback(answer_second)
    outbox.give(first, 1)
    outbox.send()
    assert second.result(0) == 2

"""The books on who uses a model."""

from __future__ import annotations

import gc

from mofa_gguf.provider.uses import Use, Uses


def made(uses: Uses, log: list[object] | None = None) -> Use:
    """A use that has begun."""
    log = [] if log is None else log
    use = Use("a", release=lambda *given: log.append(given), dropped=uses.drop)
    uses.begin(use)
    return use


def test_a_release_names_the_ticket_and_how_long_the_model_stays() -> None:
    log: list[object] = []
    use = made(Uses(), log)
    use.release()
    use.release(keep_alive_s=5)
    assert log == [(use.ticket, None), (use.ticket, 5)]


def test_a_use_is_over_once() -> None:
    uses = Uses()
    use = made(uses)
    assert uses.future(use.ticket) is use.future
    assert uses.end(use.ticket) is use.future
    assert uses.end(use.ticket) is None


def test_those_who_have_no_model_yet_wait() -> None:
    uses = Uses()
    first, second = made(uses), made(uses)
    first.ticket.admitted = True
    assert uses.waiting() == [second.future]


def test_who_is_dropped_with_a_model_is_left_behind_and_then_over() -> None:
    uses = Uses()
    use, kept = made(uses), made(uses)
    ticket, use.ticket.admitted, kept.ticket.admitted = use.ticket, True, True
    assert uses.left_behind() == []
    del use
    gc.collect()
    assert uses.left_behind() == [ticket]
    assert uses.left_behind() == []
    assert uses.end(ticket) is None


def test_who_is_dropped_while_it_waits_is_left_behind_when_it_is_answered() -> None:
    uses = Uses()
    use = made(uses)
    ticket = use.ticket
    del use
    gc.collect()
    assert uses.left_behind() == []
    ticket.admitted = True
    assert uses.left_behind() == [ticket]


def test_of_those_that_are_over_nothing_is_kept() -> None:
    uses = Uses()
    for _ in range(5):
        use = made(uses)
        uses.end(use.ticket)
        use.ticket.admitted = True
        del use
    gc.collect()
    assert not uses._dropped
    assert uses.left_behind() == []

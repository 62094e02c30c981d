"""How busy replicas are, whatever order the news comes in."""

from __future__ import annotations

from mofa_gguf_ray.loads import Loads


def test_a_request_counts_from_its_assignment_to_its_end() -> None:
    loads = Loads()
    loads.assigned("a", 0.0)
    assert (loads.of("a", 0.1), loads.of("b", 0.1)) == (1, 0)
    loads.sent("a")
    loads.taken_in("r1", "a")
    assert loads.of("a", 100.0) == 1  # long answers count for as long as they take
    loads.ended("r1")
    assert loads.of("a", 100.0) == 0


def test_a_burst_is_seen_before_anything_is_sent() -> None:
    loads = Loads()
    for _ in range(5):
        loads.assigned("a", 0.0)
    assert loads.of("a", 0.5) == 5


def test_what_was_called_off_before_it_was_sent_does_not_count_for_ever() -> None:
    loads = Loads()
    loads.assigned("a", 0.0)
    assert loads.of("a", 2.0) == 0


def test_a_rejected_request_counts_nowhere() -> None:
    loads = Loads()
    loads.assigned("a", 0.0)
    loads.sent("a")
    loads.ended("r1")
    assert loads.of("a", 0.0) == 0


def test_an_end_that_is_told_before_its_beginning_leaves_nothing_behind() -> None:
    loads = Loads()
    loads.ended("r1")
    loads.taken_in("r1", "a")
    assert loads.of("a", 0.0) == 0


def test_lost_replicas_are_forgotten() -> None:
    loads = Loads()
    loads.taken_in("r1", "a")
    loads.taken_in("r2", "b")
    loads.keep_only(frozenset("b"))
    assert (loads.of("a", 0.0), loads.of("b", 0.0)) == (0, 1)
    loads.ended("r1")
    assert loads.of("a", 0.0) == 0

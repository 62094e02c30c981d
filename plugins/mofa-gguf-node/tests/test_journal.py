"""What a provider node remembers of its replies."""

from __future__ import annotations

from mofa_gguf_node.journal import Journal

A, B, C = ("agent", "a"), ("agent", "b"), ("other", "a")


def test_replies_are_numbered_and_told_again_from_any_number_on() -> None:
    journal = Journal()
    journal.open(A)
    assert [journal.add(A, {"op": "chunk", "n": n}, 9) for n in range(3)] == [0, 1, 2]
    assert journal.since(A, 1) == [{"op": "chunk", "n": 1}, {"op": "chunk", "n": 2}]
    assert journal.since(A, 3) == []
    journal.close(A)
    assert len(journal.since(A, 0)) == 3


def test_the_same_id_from_another_agent_is_another_request() -> None:
    journal = Journal()
    journal.open(A)
    assert A in journal
    assert C not in journal


def test_the_oldest_that_are_over_are_forgotten_and_never_what_runs() -> None:
    journal = Journal(max_requests=1)
    for key in (A, B, C):
        journal.open(key)
        journal.add(key, {"op": "end"}, 1)
    for key in (A, B):
        journal.close(key)
    assert [key in journal for key in (A, B, C)] == [False, True, True]


def test_long_replies_make_room_and_the_last_one_stays() -> None:
    journal = Journal(max_characters=100)
    for key, n_characters in ((A, 60), (B, 60), (C, 500)):
        journal.open(key)
        journal.add(key, {"op": "result"}, n_characters)
        journal.close(key)
        assert key in journal
    assert [key in journal for key in (A, B, C)] == [False, False, True]

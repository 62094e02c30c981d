"""The prefix cache against a pretended memory that keeps its own books."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mofa_gguf.engine.cache.prefix_tree import Lease, common_prefix
from mofa_gguf.engine.cache.radix import PrefixCache
from tests.engine.fake_memory import FakeMemory


class Bench:
    """A cache, its memory, and requests that compute one token after the other."""

    def __init__(
        self,
        n_cells: int = 100,
        n_sequences: int = 8,
        *,
        shares: bool = True,
        min_shared: int = 1,
    ) -> None:
        self.memory = FakeMemory(n_cells)
        self.cache = PrefixCache(
            self.memory,
            n_cells=n_cells,
            n_sequences=n_sequences,
            shares=shares,
            min_shared=min_shared,
        )

    def open(self, prompt: list[int]) -> Lease:
        lease = self.cache.open(prompt)
        assert lease is not None
        return lease

    def compute(self, lease: Lease, tokens: list[int]) -> None:
        for token in tokens:
            self.memory.compute(lease.sequence, lease.n_tokens, token)
            self.cache.extend(lease, [token])

    def run(self, prompt: list[int], answer: list[int] | None = None) -> int:
        """A whole request; returns how many tokens it found cached."""
        lease = self.open(prompt)
        n_cached = lease.n_tokens
        self.compute(lease, prompt[n_cached:])
        self.cache.publish(lease)
        self.compute(lease, answer or [])
        assert self.memory.tokens(lease.sequence) == (*prompt, *(answer or []))
        self.cache.close(lease)
        self.cache.check()
        assert self.memory.n_used == self.cache.n_used
        return n_cached


def test_a_second_request_shares_the_common_prefix() -> None:
    bench = Bench()
    assert bench.run([1, 2, 3, 4]) == 0
    assert bench.run([1, 2, 3, 9, 9]) == 3
    assert bench.cache.n_used == 4 + 2


def test_the_last_token_is_always_computed() -> None:
    bench = Bench()
    bench.run([1, 2, 3])
    assert bench.run([1, 2, 3]) == 2
    assert bench.cache.n_used == 3


def test_the_next_turn_finds_prompt_and_answer() -> None:
    bench = Bench()
    bench.run([1, 2, 3], [4, 5])
    assert bench.run([1, 2, 3, 4, 5, 6, 7]) == 5


def test_a_published_prompt_is_shared_while_its_request_still_runs() -> None:
    bench = Bench()
    first = bench.open([1, 2, 3, 4])
    bench.compute(first, [1, 2, 3])
    bench.cache.publish(first)
    second = bench.open([1, 2, 3, 8])
    assert second.n_tokens == 3
    bench.compute(first, [4])
    bench.compute(second, [8])
    assert bench.memory.tokens(first.sequence) == (1, 2, 3, 4)
    assert bench.memory.tokens(second.sequence) == (1, 2, 3, 8)
    bench.cache.close(first)
    bench.cache.close(second)
    bench.cache.check()
    assert bench.memory.n_used == bench.cache.n_used == 5


def test_what_two_requests_computed_alike_is_kept_once() -> None:
    bench = Bench()
    first, second = bench.open([1, 2]), bench.open([1, 2])
    bench.compute(first, [1, 2, 3, 4])
    bench.compute(second, [1, 2, 3, 9])
    bench.cache.close(first)
    bench.cache.close(second)
    bench.cache.check()
    assert bench.memory.n_used == bench.cache.n_used == 5


def test_the_least_recently_used_branch_gives_way() -> None:
    bench = Bench(n_cells=12)
    bench.run([1, 1, 1, 1])
    bench.run([2, 2, 2, 2])
    bench.run([1, 1, 1, 1, 5])  # the first branch is used again
    assert bench.cache.make_room(6)
    assert bench.cache.match([1, 1, 1, 1, 5]) == 5
    assert bench.cache.match([2, 2, 2, 2]) == 0
    assert bench.memory.n_used == bench.cache.n_used


def test_a_shared_prefix_outlives_its_branches() -> None:
    bench = Bench()
    bench.run([1, 2, 3, 4, 4])
    bench.run([1, 2, 3, 5, 5])
    assert bench.cache.make_room(bench.cache.n_free + 2)
    assert bench.cache.match([1, 2, 3, 4, 4]) == 3
    assert bench.cache.make_room(bench.cache.n_free + 2)
    assert bench.cache.match([1, 2, 3]) == 3
    bench.cache.check()
    assert bench.memory.n_used == bench.cache.n_used == 3


def test_running_requests_are_never_evicted() -> None:
    bench = Bench(n_cells=10)
    lease = bench.open([1, 2, 3])
    bench.compute(lease, [1, 2, 3])
    bench.cache.publish(lease)
    assert bench.cache.n_evictable == 0
    assert not bench.cache.make_room(8)
    assert bench.memory.tokens(lease.sequence) == (1, 2, 3)


def test_ids_run_out_only_when_all_are_running() -> None:
    bench = Bench(n_sequences=2)
    for first in range(5):
        bench.run([first, 1])
    leases = [bench.open([50, 1]), bench.open([60, 1])]
    assert bench.cache.open([70, 1]) is None
    bench.cache.close(leases[0])
    assert bench.cache.open([70, 1]) is not None


def test_without_sharing_nothing_is_kept() -> None:
    bench = Bench(shares=False)
    assert bench.run([1, 2, 3]) == 0
    assert bench.run([1, 2, 3]) == 0
    assert bench.memory.n_used == bench.cache.n_used == 0


def test_a_short_common_beginning_is_not_shared() -> None:
    bench = Bench(min_shared=3)
    bench.run([1, 2, 5, 5, 5])
    assert bench.run([1, 2, 6, 6, 6]) == 0
    assert bench.cache.n_used == 10
    assert bench.run([1, 2, 6, 7, 7]) == 3


def test_what_is_too_short_to_be_shared_is_not_kept() -> None:
    bench = Bench(min_shared=3)
    bench.run([1, 2])
    assert bench.cache.n_used == 0
    bench.run([1, 2], [3, 4])
    assert bench.run([1, 2, 3, 4, 5]) == 4


def test_common_prefix_of_long_lists() -> None:
    a = list(range(5000))
    for differing in (0, 1, 2, 2500, 4998, 4999):
        b = [*a[:differing], -1, *a[differing + 1 :]]
        assert common_prefix(a, b) == differing
    assert common_prefix(a, a[:77]) == 77
    assert common_prefix([], a) == 0


class RandomRequests(RuleBasedStateMachine):
    """Requests that come, compute, publish, end and are dropped in any order."""

    MIN_SHARED = 1

    def __init__(self) -> None:
        super().__init__()
        self.bench = Bench(n_cells=40, n_sequences=5, min_shared=self.MIN_SHARED)
        self.running: list[tuple[Lease, list[int]]] = []

    @rule(prompt=st.lists(st.integers(0, 2), min_size=1, max_size=12))
    def begin(self, prompt: list[int]) -> None:
        lease = self.bench.cache.open(prompt)
        if lease is None:
            assert len(self.running) == 5
            return
        assert lease.n_tokens < len(prompt)
        self.running.append((lease, prompt[: lease.n_tokens]))

    @precondition(lambda self: self.running)
    @rule(data=st.data(), tokens=st.lists(st.integers(0, 2), min_size=1, max_size=6))
    def compute(self, data: st.DataObject, tokens: list[int]) -> None:
        lease, told = data.draw(st.sampled_from(self.running))
        if self.bench.cache.make_room(len(tokens)):
            self.bench.compute(lease, tokens)
            told.extend(tokens)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def publish(self, data: st.DataObject) -> None:
        self.bench.cache.publish(data.draw(st.sampled_from(self.running))[0])

    @precondition(lambda self: self.running)
    @rule(data=st.data(), keep=st.booleans())
    def end(self, data: st.DataObject, keep: bool) -> None:
        pair = data.draw(st.sampled_from(self.running))
        self.running.remove(pair)
        self.bench.cache.close(pair[0], keep=keep)

    @rule(n_cells=st.integers(0, 40))
    def need(self, n_cells: int) -> None:
        possible = self.bench.cache.n_free + self.bench.cache.n_evictable
        assert self.bench.cache.make_room(n_cells) == (n_cells <= possible)

    @invariant()
    def the_books_agree(self) -> None:
        self.bench.cache.check()
        assert self.bench.memory.n_used == self.bench.cache.n_used
        for lease, told in self.running:
            assert self.bench.memory.tokens(lease.sequence) == tuple(told)


class LongOnesShare(RandomRequests):
    """The same where short beginnings are not shared."""

    MIN_SHARED = 3


TestLongOnesShare = LongOnesShare.TestCase
TestLongOnesShare.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestRandomRequests = RandomRequests.TestCase
TestRandomRequests.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)

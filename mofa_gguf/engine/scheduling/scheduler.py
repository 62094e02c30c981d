"""Which tokens the next step computes. Knows nothing of llama.cpp.

Continuous batching (Yu et al., Orca, OSDI 2022): every step takes the next token of each running
request and fills the batch with pieces of prompts. Prefixes are shared through the radix tree;
requests that arrive together compute a common prefix once. When cells run short, cached branches
give way first, then the youngest running request, which is computed again later.

A running request may have tokens guessed ahead: they are computed with its next one, and those
that turn out wrong are given back (:meth:`Scheduler.settle`) before the next step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from mofa_gguf.engine.cache.prefix_tree import Lease, common_prefix
from mofa_gguf.engine.cache.radix import PrefixCache
from mofa_gguf.engine.scheduling.policy import (
    fits,
    prefill_budget,
    should_wait,
    worth_leaving,
)


@dataclass(eq=False)
class Task:
    """A request as the scheduler sees it: tokens, and how many of them are computed."""

    tokens: list[int]
    """The prompt, and behind it what was generated."""
    priority: int = 0
    """Higher goes first."""
    arrival: int = 0
    n_prompt: int = field(init=False)
    lease: Lease | None = None
    n_cached: int = 0
    """Prompt tokens that were found cached when it first started."""
    started: bool = False
    recalled: bool = False
    """Whether what is kept of its prefix elsewhere was asked for."""

    def __post_init__(self) -> None:
        self.n_prompt = len(self.tokens)

    @property
    def n_computed(self) -> int:
        """Tokens in the KV cache."""
        return self.lease.n_tokens if self.lease is not None else 0

    @property
    def n_todo(self) -> int:
        """Tokens that must be computed before the next one can be chosen."""
        return len(self.tokens) - self.n_computed

    @property
    def in_prefill(self) -> bool:
        """Whether tokens of its prompt (or of what is computed again) are still missing."""
        return self.n_todo > 1


Guess = Callable[[Sequence[Task], int], Sequence[Sequence[int]]]
"""For each of some tasks the tokens guessed behind its own, as many as a number in all."""


@dataclass(frozen=True)
class Piece:
    """Tokens of one task for one step; ``is_last``: the task's next token follows from it.

    The last ``n_drafted`` tokens are guesses: not the task's yet.
    """

    task: Task
    sequence: int
    start: int
    tokens: Sequence[int]
    is_last: bool
    n_drafted: int = 0

    @property
    def guessed(self) -> Sequence[int]:
        """The tokens that are guesses."""
        return self.tokens[len(self.tokens) - self.n_drafted :]


class Scheduler:
    """Waiting and running tasks over one prefix cache."""

    def __init__(
        self, cache: PrefixCache, *, n_batch: int, max_parallel: int, at_once: int = 0
    ) -> None:
        self.cache = cache
        self.waiting: list[Task] = []
        self.running: list[Task] = []
        self._n_batch = n_batch
        self._max_parallel = max_parallel
        self._at_once = at_once
        self._arrivals = 0
        self.recall: Callable[[Sequence[int]], None] | None = None
        """Brings cells back that were moved out of the cache, before a task with them starts."""

    @property
    def full(self) -> bool:
        """Whether as many tasks run as may."""
        return len(self.running) >= self._max_parallel

    def add(self, task: Task) -> None:
        """Let a task wait for its turn."""
        self._arrivals += 1
        task.arrival = self._arrivals
        self.waiting.append(task)

    def plan(self, *, tokens_per_s: float | None = None, guess: Guess | None = None) -> list[Piece]:
        """The next step's pieces; empty when there is nothing to compute.

        Starts waiting tasks that fit, and makes room by evicting and, if need be, preempting.
        ``guess`` is asked for tokens ahead as far as the batch has room for them; guesses evict,
        but never preempt.
        """
        self._start_waiting()
        decoding = [task for task in self.running if not task.in_prefill]
        while not self.cache.make_room(len(decoding)):
            preempted = self._preempt_youngest()
            decoding = [task for task in decoding if task is not preempted]
        decoding = decoding[: self._n_batch]
        guesses = self._guesses(decoding, guess) if guess is not None else [()] * len(decoding)
        pieces = [
            self._piece(task, task.n_todo, guessed)
            for task, guessed in zip(decoding, guesses, strict=True)
        ]
        if len(decoding) == len(self.running):
            return pieces
        n_tokens = sum(len(piece.tokens) for piece in pieces)
        budget = prefill_budget(
            n_decoding=n_tokens, n_batch=self._n_batch, tokens_per_s=tokens_per_s
        )
        return pieces + self._whole(self._prefill(budget, beside=n_tokens), beside=n_tokens)

    def computed(self, pieces: Sequence[Piece]) -> None:
        """Note that the pieces are in the KV cache."""
        for piece in pieces:
            lease = piece.task.lease
            assert lease is not None
            was_prefill = piece.task.in_prefill
            self.cache.extend(lease, piece.tokens)
            if was_prefill or not piece.task.started:
                self.cache.publish(lease)
            piece.task.started = True

    def settle(self, piece: Piece) -> None:
        """Give back the cells of the piece's guesses that did not become the task's tokens."""
        task = piece.task
        if not piece.n_drafted or task.lease is None:
            return
        came = task.tokens[piece.start : piece.start + len(piece.tokens)]
        self.cache.trim(task.lease, piece.start + common_prefix(piece.tokens, came))

    def finish(self, task: Task, *, keep: bool = True) -> None:
        """Take a task out, wherever it is; with ``keep`` its tokens stay cached."""
        if task in self.running:
            self.running.remove(task)
        else:
            self.waiting.remove(task)
        self._return_lease(task, keep=keep)

    def reset(self) -> list[Task]:
        """The KV cache was emptied: running tasks wait again, in their old order."""
        self.cache.clear()
        tasks, self.running = self.running, []
        for task in tasks:
            task.lease = None
        self.waiting += tasks
        return tasks

    def check(self) -> None:
        """AssertionError if the books do not agree."""
        self.cache.check()
        assert len(self.running) <= self._max_parallel
        assert all(task.lease is not None for task in self.running)
        assert all(task.lease is None for task in self.waiting)
        assert all(task.n_computed <= len(task.tokens) for task in self.running), "open guesses"
        assert not set(map(id, self.running)) & set(map(id, self.waiting))

    def _start_waiting(self) -> None:
        if not self.waiting:
            return
        self.waiting.sort(key=lambda task: (-task.priority, task.arrival))
        for task in list(self.waiting):
            if self.full:
                return
            if self.recall is not None and not task.recalled:
                task.recalled = True
                self.recall(task.tokens)
            n_cached = self.cache.match(task.tokens)
            in_progress = [t.tokens for t in self.running if t.in_prefill]
            if should_wait(task.tokens, n_cached=n_cached, in_progress=in_progress):
                continue
            if not self._fits(task, n_cached):
                return  # nobody overtakes a task that waits for room: it would starve
            lease = self.cache.open(task.tokens)
            if lease is None:
                return
            if not task.started:
                task.n_cached = lease.n_tokens
            task.lease = lease
            self.waiting.remove(task)
            self.running.append(task)

    def _fits(self, task: Task, n_cached: int) -> bool:
        return fits(
            n_needed=len(task.tokens) - n_cached,
            n_promised=sum(other.n_todo for other in self.running),
            n_available=self.cache.n_available_beside(task.tokens),
            n_running=len(self.running),
        )

    def _prefill(self, budget: int, *, beside: int) -> list[Piece]:
        """Pieces of prompts, oldest first, as far as budget and cells go."""
        pieces: list[Piece] = []
        n_reserved = beside
        for task in self.running:
            n_tokens = min(budget, task.n_todo)
            if not task.in_prefill or n_tokens <= 0:
                continue
            if not self.cache.make_room(n_reserved + n_tokens):
                n_tokens = self.cache.n_free - n_reserved
                if n_tokens <= 0:
                    break
            pieces.append(self._piece(task, n_tokens))
            budget -= n_tokens
            n_reserved += n_tokens
        if not pieces and not beside and self.running:
            return self._make_way()
        return pieces

    def _whole(self, pieces: list[Piece], *, beside: int) -> list[Piece]:
        """The pieces without those of their last tokens that are better left."""
        sizes = [len(piece.tokens) for piece in pieces]
        left = worth_leaving(sizes, beside=beside, at_once=self._at_once)
        return [
            self._piece(piece.task, size - n) if n else piece
            for piece, size, n in zip(pieces, sizes, left, strict=True)
        ]

    def _make_way(self) -> list[Piece]:
        """No task can go on: preempt the youngest until the oldest can."""
        while len(self.running) > 1:
            self._preempt_youngest()
            task = self.running[0]
            n_tokens = min(self._n_batch, task.n_todo)
            if self.cache.make_room(n_tokens):
                return [self._piece(task, n_tokens)]
        task = self.running[0]
        self.cache.make_room(min(self._n_batch, task.n_todo))
        n_tokens = min(self._n_batch, task.n_todo, self.cache.n_free)
        assert n_tokens > 0, "a task alone must fit"
        return [self._piece(task, n_tokens)]

    def _guesses(self, decoding: Sequence[Task], guess: Guess) -> Sequence[Sequence[int]]:
        """Guesses for each task, none where cells are short. What is not shared is not dropped."""
        none: list[Sequence[int]] = [()] * len(decoding)
        # A task's first token completes its prompt, whose cells go into the tree as they are.
        able = [task for task in decoding if task.started] if self.cache.shares else []
        if not able:
            return none
        found = guess(able, self._n_batch - len(decoding))
        by_task = dict(zip(map(id, able), found, strict=True))
        guesses = [by_task.get(id(task), ()) for task in decoding]
        n_drafted = sum(map(len, guesses))
        n_prefill = sum(task.n_todo for task in self.running if task.in_prefill)
        n_other = len(decoding) + min(n_prefill, self._n_batch)
        if not n_drafted or not self.cache.make_room(n_other + n_drafted):
            return none
        return guesses

    def _piece(self, task: Task, n_tokens: int, guessed: Sequence[int] = ()) -> Piece:
        assert task.lease is not None
        start = task.n_computed
        tokens = [*task.tokens[start : start + n_tokens], *guessed]
        is_last = start + n_tokens == len(task.tokens)
        return Piece(task, task.lease.sequence, start, tokens, is_last, len(guessed))

    def _preempt_youngest(self) -> Task:
        """Let the least urgent, youngest running task wait again; its cells may be evicted."""
        task = min(self.running, key=lambda t: (t.priority, -t.arrival))
        self.running.remove(task)
        self._return_lease(task, keep=True)
        self.waiting.append(task)
        return task

    def _return_lease(self, task: Task, *, keep: bool) -> None:
        if task.lease is not None:
            self.cache.close(task.lease, keep=keep)
            task.lease = None

"""The words of drafting: wishes, guesses, what computes them, and one sequence's draft."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from mofa_gguf.engine.cache.prefix_tree import Lease, common_prefix
from mofa_gguf.engine.cache.radix import PrefixCache
from mofa_gguf.engine.scheduling.scheduler import Task
from mofa_gguf.engine.speculation.draft_policy import DraftAcceptance


@dataclass(frozen=True)
class Feed:
    """Tokens of one sequence for a decode of the draft model."""

    sequence: int
    start: int
    tokens: Sequence[int]


@dataclass(frozen=True)
class Likely:
    """The token that the draft model finds most probable, and how probable."""

    token: int
    confidence: float


class Decoder(Protocol):
    """What computes. ``n_tokens``: ids that it has in common with the target."""

    n_batch: int
    n_tokens: int

    def decode(self, feeds: Sequence[Feed], *, wanted: bool) -> Sequence[Likely]:
        """Compute the tokens; with ``wanted`` what follows on each feed. Raises DecodeFailed."""

    def clear(self) -> None:
        """Empty the cache."""

    def close(self) -> None:
        """Free everything; may be called twice."""


@dataclass(frozen=True)
class Wish:
    """A task that would like a draft of ``n_max`` tokens at most.

    ``forced``: whether it pays or not.
    """

    task: Task
    n_max: int
    forced: bool = False


@dataclass(frozen=True)
class Drafted:
    """Tokens that may come next. ``chances``: for each, that it and those before it are right.

    ``whole``: all are to be checked, whatever their chances.
    """

    tokens: Sequence[int] = ()
    chances: Sequence[float] = ()
    whole: bool = False


NOTHING = Drafted()


@dataclass(eq=False)
class Draft:
    """What is known of one sequence's draft. Of the lease's tokens the first ``n_sure`` are known
    to be the task's; those behind them are guesses that were computed.
    """

    task: Task
    lease: Lease
    n_sure: int
    published: bool = False
    """Whether its prompt was given to others to share."""
    n_from: int = 0
    """How many tokens the task had when ``guessed`` was said to follow them."""
    guessed: list[Likely] = field(default_factory=list)

    @property
    def n_behind(self) -> int:
        """Tokens that must be computed before anything can be guessed."""
        return len(self.task.tokens) - self.lease.n_tokens

    def trim(self, cache: PrefixCache, n_most: int) -> None:
        """Give back the cells behind what is the task's own, and behind its first ``n_most``."""
        lease, n_sure = self.lease, self.n_sure
        unsure = lease.tail[n_sure - lease.node.end :]
        n_sure += common_prefix(unsure, self.task.tokens[n_sure : n_sure + len(unsure)])
        self.n_sure = min(n_sure, max(n_most, lease.node.end))
        cache.trim(lease, self.n_sure)

    def learn(self, acceptance: DraftAcceptance) -> None:
        """See which of the last guesses were right."""
        guessed, self.guessed = self.guessed, []
        came = self.task.tokens[self.n_from : self.n_from + len(guessed)]
        for likely, token in zip(guessed, came, strict=False):
            acceptance.note(likely.confidence, right=likely.token == token)
            if likely.token != token:
                return

"""Cells move between the KV cache and the host's memory instead of being computed again.

Cells of idle conversations give way when others need room. They also slow those that run, since
attention on a CPU goes over every cell up to the last one in use; so there they are copied when
they have been idle for a while, and given up when something else starts. A request that goes on
from what was moved out gets it back by copying: milliseconds where computing takes seconds.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from mofa_gguf.engine.cache.parked import Parked, ParkedPrefixes
from mofa_gguf.engine.cache.policy import MIN_WORTH_PARKING, idle_cells_allowed
from mofa_gguf.engine.cache.prefix_tree import Node, common_prefix, tokens_of
from mofa_gguf.engine.cache.radix import PrefixCache
from mofa_gguf.engine.cache.states import CellStates
from mofa_gguf.engine.errors import DecodeFailed

logger = logging.getLogger(__name__)

IDLE_S = 1.0
"""How long cells lie idle before they are moved out: an agent's next turn often comes at once."""
_BUSY_SHARE = 0.02
"""How much of the time is for copying idle cells while requests run. New memory is slow to come
by: copying 28 MB took 12 to 230 ms."""


class Parking:
    """Moves prefixes out of a cache when they are evicted, and back when they are asked for.

    ``eager``: idle cells slow the running ones, and are moved out before room is short.
    """

    def __init__(
        self, cache: PrefixCache, states: CellStates, *, max_bytes: int, eager: bool
    ) -> None:
        self.prefixes = ParkedPrefixes(max_bytes)
        self.n_recalled_tokens = 0
        """Prompt tokens that came back from the host's memory."""
        self._cache = cache
        self._states = states
        self._eager = eager
        self._not_before = 0.0
        if max_bytes and cache.shares:
            cache.before_evict = self._save

    def due_in(self, now: float | None = None) -> float | None:
        """Seconds until :meth:`tidy` has something to do; None where it has nothing."""
        idle = self._idle()
        due = idle if self._n_too_many() > 0 else [leaf for leaf in idle if not leaf.saved]
        if not due:
            return None
        return max(0.0, due[0].used_at + IDLE_S - (time.monotonic() if now is None else now))

    def tidy(self, now: float | None = None) -> None:
        """Copy one branch that has been idle for a while, or move one out where they are too many.

        While requests run, that takes a small share of the time: they wait for it.
        """
        began = time.monotonic()
        before = (began if now is None else now) - IDLE_S
        idle = [leaf for leaf in self._idle() if leaf.used_at < before]
        unsaved = next((leaf for leaf in idle if not leaf.saved), None)
        if unsaved is not None and (not self._n_active or began >= self._not_before):
            self._save(unsaved)
            ended = time.monotonic()
            self._not_before = ended + (ended - began) / _BUSY_SHARE
        elif self._n_too_many() > 0:
            saved = next((leaf for leaf in idle if leaf.saved), None)
            if saved is not None:
                self._cache.evict(saved)

    def _idle(self) -> list[Node]:
        """The branches that no request runs on, where those matter; least recently used first."""
        if not self._eager or self._cache.before_evict is None:
            return []
        return self._cache.idle_leaves()

    def make_way(self, prompts: Sequence[Sequence[int]]) -> None:
        """Before prompts start: give up the idle cells that they do not go on from.

        Only those that were copied in quiet times, so that it costs nothing now.
        """
        if not self._eager:
            return
        wanted = {
            id(self._cache.on_the_way(tokens))
            for tokens in prompts
            if self._cache.match(tokens) >= MIN_WORTH_PARKING
        }
        for leaf in self._cache.idle_leaves():
            if leaf.saved and id(leaf) not in wanted:
                self._cache.evict(leaf)

    @property
    def _n_active(self) -> int:
        return self._cache.n_used - self._cache.n_evictable

    def _n_too_many(self) -> int:
        n_allowed = idle_cells_allowed(n_active=self._n_active, n_latest=self._cache.n_latest)
        return self._cache.n_evictable - n_allowed

    def recall(self, tokens: Sequence[int]) -> None:
        """Bring back what was moved out of the prefix of ``tokens``, if that is worth it."""
        parked = self.prefixes.best(tokens[:-1])
        if parked is None:
            return
        n_same = common_prefix(parked.tokens, tokens[:-1])
        n_whole = len(parked.tokens)
        if n_same - self._cache.match(tokens) < MIN_WORTH_PARKING:
            return
        self.prefixes.touch(parked)
        if not self._cache.make_room(n_whole):
            return
        try:
            if self._states.write(parked.tokens, parked.state, n_kept=n_same):
                self.n_recalled_tokens += n_same
        except DecodeFailed as error:
            logger.warning("a parked prefix of %d tokens is lost: %s", n_whole, error)
            self.prefixes.drop(parked)

    def _save(self, leaf: Node) -> None:
        """Keep the state of a leaf's cells, unless it is small or kept already."""
        if leaf.saved:
            return
        leaf.saved = True
        tokens = tokens_of(leaf)
        if len(tokens) < MIN_WORTH_PARKING or self.prefixes.covers(tokens):
            return
        assert leaf.holder is not None
        try:
            state = self._states.of_sequence(leaf.holder)
        except DecodeFailed as error:
            logger.warning("a prefix of %d tokens is not kept: %s", len(tokens), error)
            return
        self.prefixes.put(Parked(tokens, state))

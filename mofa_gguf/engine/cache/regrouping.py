"""Cells of a conversation come to lie together again, after it was answered beside others.

Requests that run together get their cells in turns: four streams share every four neighbours.
llama.cpp's flash attention for CPUs leaves out tiles of 64 cells where none counts, and never finds
such a tile there; and where earlier ones have gone, what runs keeps the cells at the far end that
attention goes up to. So between the turns, when nothing runs, what came since the last time is
copied out, given up and copied back, one conversation after the other: llama.cpp takes the first
free cells. Measured (0.4 B parameters, two cores): four times 65 tokens behind 416 each take 1.35 s
as they came and 1.19 s regrouped; moving the cells of four turns takes some 10 ms.
"""

from __future__ import annotations

import logging
import mmap
from collections.abc import Iterable

from mofa_gguf.engine.cache.memory import State, StateMemory
from mofa_gguf.engine.cache.prefix_tree import Node
from mofa_gguf.engine.cache.radix import PrefixCache
from mofa_gguf.engine.errors import DecodeFailed

logger = logging.getLogger(__name__)

MIN_CELLS = 64
"""A tile of attention: fewer are not worth moving."""
MAX_SCRATCH = 64 * 2**20
"""Bytes of cells that are out of the cache at a time."""
_SHARE = 4


def scratch_bytes(n_bytes: int) -> int:
    """How much of ``n_bytes`` of the host's memory for cells is kept for moving them."""
    return min(MAX_SCRATCH, n_bytes // _SHARE)


class Regrouping:
    """Moves the cells of idle branches. ``max_bytes``: most that is out of the cache at a time."""

    def __init__(self, cache: PrefixCache, memory: StateMemory, *, max_bytes: int) -> None:
        self.n_moved = 0
        """Cells moved so far."""
        self._cache = cache
        self._memory = memory
        self._max_bytes = max_bytes
        self._scratch: memoryview | None = None

    def regroup(self) -> None:
        """Move what came to idle leaves since the last time, if several conversations did.

        What does not fit into the scratch memory stays as it lies.
        """
        loose = [leaf for leaf in self._cache.idle_leaves() if _n_loose(leaf)]
        if len(loose) < 2 or sum(map(_n_loose, loose)) < MIN_CELLS or not self._max_bytes:
            return
        if not self._cache.has_free_id:
            return
        lease = self._cache.open([])
        assert lease is not None
        try:
            out = self._take_out(loose, lease.sequence)
            self._put_back(out, lease.sequence)
        finally:
            self._cache.close(lease)
        for leaf in loose:
            leaf.n_grouped = len(leaf.tokens)

    def _take_out(self, leaves: Iterable[Node], sequence: int) -> list[tuple[Node, State]]:
        """The states of what is loose, which leaves the cache."""
        if self._scratch is None:
            # Not a bytearray: filling that with zeros takes longer than moving what goes into it.
            self._scratch = memoryview(mmap.mmap(-1, self._max_bytes))
        out: list[tuple[Node, State]] = []
        room = self._scratch
        for leaf in leaves:
            assert leaf.holder is not None
            start = leaf.start + leaf.n_grouped
            self._memory.copy(leaf.holder, sequence, start, leaf.end)
            try:
                if self._memory.state_size(sequence) > len(room):
                    continue
                state = self._memory.state_of(sequence, room)
            except DecodeFailed as error:
                logger.warning("%d cached cells stay where they lie: %s", _n_loose(leaf), error)
                continue
            finally:
                self._memory.remove(sequence, 0, -1)
            self._memory.remove(leaf.holder, start, -1)
            room = room[len(state) :]
            out.append((leaf, state))
        return out

    def _put_back(self, out: Iterable[tuple[Node, State]], sequence: int) -> None:
        for leaf, state in out:
            assert leaf.holder is not None
            start = leaf.start + leaf.n_grouped
            try:
                self._memory.restore(sequence, state)
            except DecodeFailed as error:
                logger.warning("%d cached cells are lost: %s", _n_loose(leaf), error)
                self._memory.remove(sequence, 0, -1)
                self._cache.forget(leaf)
                continue
            self._memory.copy(sequence, leaf.holder, start, leaf.end)
            self._memory.remove(sequence, 0, -1)
            self.n_moved += _n_loose(leaf)


def _n_loose(leaf: Node) -> int:
    return len(leaf.tokens) - leaf.n_grouped

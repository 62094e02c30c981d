"""Cached cells as bytes, and back: what sessions on disk and parked prefixes are made of."""

from __future__ import annotations

from collections.abc import Sequence

from mofa_gguf.engine.cache.memory import State, StateMemory
from mofa_gguf.engine.cache.radix import PrefixCache
from mofa_gguf.engine.cache.session import Session
from mofa_gguf.engine.errors import OutOfMemory, QueueFull

_NO_TOKEN = -1


class CellStates:
    """Reads the cells of cached prefixes and puts such cells into the cache."""

    def __init__(self, cache: PrefixCache, memory: StateMemory) -> None:
        self._cache = cache
        self._memory = memory

    def save(self, tokens: Sequence[int]) -> Session:
        """The cells of the longest beginning of ``tokens`` that is cached.

        Raises QueueFull when every sequence is in use, and DecodeFailed.
        """
        found = self.read(tokens)
        if found is None:
            raise QueueFull(self._cache.n_sequences)
        n_tokens, state = found
        return Session(list(tokens[:n_tokens]), state)

    def restore(self, session: Session) -> None:
        """Take saved cells into the cache. Raises OutOfMemory, QueueFull, DecodeFailed."""
        n_tokens = len(session.tokens)
        if self._cache.match(session.tokens) == n_tokens:
            return
        if not self._cache.make_room(n_tokens):
            raise OutOfMemory(
                f"the session has {n_tokens} tokens and {self._cache.n_free} cells of the KV cache "
                "can be freed; restore it when fewer requests run, or with a larger n_ctx"
            )
        if not self.write(session.tokens, session.state, n_kept=n_tokens):
            raise QueueFull(self._cache.n_sequences)

    def read(self, tokens: Sequence[int]) -> tuple[int, State] | None:
        """How many of ``tokens`` are cached from the beginning, and the state of those cells.

        None when every sequence is in use. Raises DecodeFailed.
        """
        lease = self._cache.open([*tokens, _NO_TOKEN])  # a lease shares all but the last token
        if lease is None:
            return None
        try:
            return lease.n_tokens, self.of_sequence(lease.sequence) if lease.n_tokens else b""
        finally:
            self._cache.close(lease)

    def of_sequence(self, sequence: int) -> State:
        """The state of a sequence's cells. Raises DecodeFailed."""
        return self._memory.state_of(sequence)

    def write(self, tokens: Sequence[int], state: State, *, n_kept: int) -> bool:
        """Put the state of ``tokens`` into the cache and keep the first ``n_kept`` cells.

        Cells for all of it must be free. False when every sequence is in use. Raises DecodeFailed.
        """
        lease = self._cache.open([])
        if lease is None:
            return False
        try:
            self._memory.restore(lease.sequence, state)
            if n_kept < len(tokens):
                self._memory.remove(lease.sequence, n_kept, -1)
            self._cache.extend(lease, tokens[:n_kept])
        finally:
            self._cache.close(lease)
        return True

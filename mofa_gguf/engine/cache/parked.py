"""Prefixes whose cells gave way, kept in the host's memory. Knows nothing of llama.cpp."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mofa_gguf.engine.cache.memory import State
from mofa_gguf.engine.cache.prefix_tree import common_prefix

MAX_ENTRIES = 256
"""Prefixes kept at most: each new prompt is compared with all of them."""
_TOKEN_BYTES = 8


@dataclass(frozen=True, eq=False)
class Parked:
    """Tokens, and the state of their cells."""

    tokens: list[int]
    state: State

    @property
    def n_bytes(self) -> int:
        """Memory that it takes."""
        return len(self.state) + _TOKEN_BYTES * len(self.tokens)


class ParkedPrefixes:
    """What fits into ``max_bytes``, 256 at most; what was used least recently is dropped first."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.n_bytes = 0
        self._entries: list[Parked] = []  # least recently used first

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def n_tokens(self) -> int:
        """Tokens of all prefixes."""
        return sum(len(entry.tokens) for entry in self._entries)

    def covers(self, tokens: Sequence[int]) -> bool:
        """Whether one begins with all of ``tokens``."""
        best = self.best(tokens)
        return best is not None and common_prefix(best.tokens, tokens) == len(tokens)

    def best(self, tokens: Sequence[int]) -> Parked | None:
        """The one that shares the longest beginning with ``tokens``."""
        most, best = 0, None
        for entry in self._entries:
            n_same = common_prefix(entry.tokens, tokens)
            if n_same > most:
                most, best = n_same, entry
        return best

    def put(self, parked: Parked) -> None:
        """Keep one, in the place of those that it goes on from."""
        for entry in list(self._entries):
            if common_prefix(entry.tokens, parked.tokens) == len(entry.tokens):
                self.drop(entry)
        if parked.n_bytes > self.max_bytes:
            return
        while len(self) >= MAX_ENTRIES or self.n_bytes + parked.n_bytes > self.max_bytes:
            self.drop(self._entries[0])
        self._entries.append(parked)
        self.n_bytes += parked.n_bytes

    def touch(self, parked: Parked) -> None:
        """Note that it was used."""
        self._entries.remove(parked)
        self._entries.append(parked)

    def drop(self, parked: Parked) -> None:
        """Forget one."""
        self._entries.remove(parked)
        self.n_bytes -= parked.n_bytes

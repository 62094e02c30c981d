"""What the prefix cache and those who move its cells need of a KV cache.

Cells belong to sequences, at positions; ``end`` -1 is a sequence's end.
"""

from __future__ import annotations

from typing import Protocol

State = bytes | memoryview
"""The cells of a sequence as bytes."""


class CacheMemory(Protocol):
    """Sequences that share cells."""

    def copy(self, source: int, target: int, start: int, end: int) -> None:
        """Let ``target`` share the cells of ``source`` at positions ``start`` to ``end``."""

    def remove(self, sequence: int, start: int, end: int) -> None:
        """Take ``sequence`` off its cells at positions ``start`` to ``end``."""

    def has_all(self, sequence: int, n_tokens: int) -> bool:
        """Whether ``sequence`` has every cell that a token behind ``n_tokens`` attends to."""


class StateMemory(CacheMemory, Protocol):
    """Sequences whose cells can be read and filled, too."""

    def state_size(self, sequence: int) -> int:
        """Bytes of a sequence's state."""

    def state_of(self, sequence: int, into: memoryview | None = None) -> State:
        """A sequence's cells, in new memory or at the beginning of ``into``. Raises DecodeFailed.

        Cells lie in it as they lie in the cache.
        """

    def restore(self, sequence: int, state: State) -> None:
        """Fill an empty sequence. Raises DecodeFailed."""

"""What a provider node has replied, for agents that did not hear it."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from mofa_gguf_node.wire import Json

Key = tuple[str, str]
"""A request: the input it came in at, and its id."""


@dataclass
class _Entry:
    replies: list[Json] = field(default_factory=list)
    n_characters: int = 0


class Journal:
    """The replies of requests, by their numbers.

    Requests that run are kept whole; of those that are over the oldest are forgotten, so that at
    most ``max_requests`` and ``max_characters`` are kept.
    """

    def __init__(self, *, max_requests: int = 4096, max_characters: int = 8 * 1024 * 1024) -> None:
        self._max_requests = max_requests
        self._max_characters = max_characters
        self._running: dict[Key, _Entry] = {}
        self._over: OrderedDict[Key, _Entry] = OrderedDict()
        self._n_characters_over = 0

    def __contains__(self, key: Key) -> bool:
        return key in self._running or key in self._over

    def open(self, key: Key) -> None:
        """A request begins."""
        self._running[key] = _Entry()

    def add(self, key: Key, reply: Json, n_characters: int) -> int:
        """A reply of a request that runs, and its length as text; gives the reply's number."""
        entry = self._running[key]
        entry.replies.append(reply)
        entry.n_characters += n_characters
        return len(entry.replies) - 1

    def since(self, key: Key, seq: int) -> list[Json]:
        """The replies of a known request from this number on."""
        entry = self._running.get(key) or self._over[key]
        return entry.replies[seq:]

    def close(self, key: Key) -> None:
        """A request is over."""
        entry = self._running.pop(key)
        self._over[key] = entry
        self._n_characters_over += entry.n_characters
        while len(self._over) > self._max_requests or (
            self._n_characters_over > self._max_characters and len(self._over) > 1
        ):
            _, forgotten = self._over.popitem(last=False)
            self._n_characters_over -= forgotten.n_characters

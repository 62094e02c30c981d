"""The nodes of the prefix cache's radix tree."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field


@dataclass(eq=False)
class Node:
    """Tokens at the positions ``start`` and up, after those of the parents."""

    tokens: list[int]
    start: int
    parent: Node | None
    children: dict[tuple[int, ...], Node] = field(default_factory=dict)
    holder: int | None = None
    """The sequence that has the whole path's cells; exactly on leaves."""
    pins: int = 0
    """Leases that end at this node."""
    last_used: int = 0
    used_at: float = 0.0
    """When that was, in seconds of a monotonic clock."""
    n_grouped: int = 0
    """How many of its tokens, from the first on, have cells that lie together."""
    saved: bool = False
    """Whether the cells of the whole path were copied elsewhere."""

    @property
    def end(self) -> int:
        """The position behind the last token."""
        return self.start + len(self.tokens)


@dataclass(eq=False)
class Lease:
    """A running request's sequence. ``tail`` are computed tokens that are not in the tree."""

    sequence: int
    node: Node
    tail: list[int] = field(default_factory=list)

    @property
    def n_tokens(self) -> int:
        """Tokens that are computed: the next one's position."""
        return self.node.end + len(self.tail)


class PrefixTree:
    """Nodes by their tokens. Knows nothing of cells.

    ``min_shared``: what the root's children differ in lies within so many first tokens.
    """

    def __init__(self, min_shared: int = 1) -> None:
        self.root = Node([], 0, None)
        self._min_shared = min_shared
        self._clock = 0

    def find(self, tokens: Sequence[int]) -> tuple[Node, int]:
        """The deepest node on the way of ``tokens``, and how many of its tokens agree."""
        node, at = self.root, 0
        while at < len(tokens):
            child = node.children.get(self.key(node, tokens, at))
            if child is None:
                break
            n_same = common_prefix(child.tokens, tokens[at : at + len(child.tokens)])
            node = child
            if n_same < len(child.tokens):
                return node, n_same
            at += n_same
        return node, len(node.tokens)

    def key(self, parent: Node, tokens: Sequence[int], at: int = 0) -> tuple[int, ...]:
        """What ``parent`` knows a child by: the first tokens (from ``at`` on) that all share."""
        return tuple(tokens[at : at + (1 if parent.parent is not None else self._min_shared)])

    def split(self, node: Node, at: int) -> Node:
        """Part a node; its first ``at`` tokens become a new node, which is returned."""
        assert node.parent is not None
        assert 0 < at < len(node.tokens)
        upper = Node(node.tokens[:at], node.start, node.parent)
        upper.last_used, upper.used_at = node.last_used, node.used_at
        upper.n_grouped, node.n_grouped = min(node.n_grouped, at), max(0, node.n_grouped - at)
        node.parent.children[self.key(node.parent, upper.tokens)] = upper
        node.tokens, node.start, node.parent = node.tokens[at:], node.start + at, upper
        upper.children[self.key(upper, node.tokens)] = node
        return upper

    def touch(self, node: Node) -> None:
        """Note that a node, and so the way to it, was used just now."""
        self._clock += 1
        now = time.monotonic()
        for each in path_of(node):
            each.last_used, each.used_at = self._clock, now

    def nodes(self) -> Iterator[Node]:
        """All nodes but the root."""
        waiting = list(self.root.children.values())
        while waiting:
            node = waiting.pop()
            yield node
            waiting.extend(node.children.values())


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """Length of the longest common beginning of two token lists."""
    low, high = 0, min(len(a), len(b))
    if a[:high] == b[:high]:
        return high
    while high - low > 1:  # a[:low] == b[:low], a[:high] != b[:high]
        middle = (low + high) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle
    return low


def tokens_of(leaf: Node) -> list[int]:
    """The tokens of the whole path to a leaf."""
    parts = [node.tokens for node in path_of(leaf)]
    return [token for part in reversed(parts) for token in part]


def path_of(node: Node) -> Iterator[Node]:
    """The node and its ancestors."""
    at: Node | None = node
    while at is not None:
        yield at
        at = at.parent


def holder_of(node: Node) -> int:
    """A sequence that has the cells of the whole path to ``node``."""
    while node.children:
        node = next(iter(node.children.values()))
    assert node.holder is not None
    return node.holder

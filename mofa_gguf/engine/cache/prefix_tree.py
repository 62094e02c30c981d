"""The nodes of the prefix cache's radix tree."""

from __future__ import annotations

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

"""The prefix cache: a radix tree over token ids whose leaves own sequences of the KV cache.

    root ── "system prompt" ── "question 1 and answer 1" ── ...
                            └─ "question 2 ..."

A node stands for cells of the KV cache: one for each of its tokens, at the positions ``start`` and
up. Every leaf has a *holder*: the id of a llama.cpp sequence that has the cells of the whole path
from the root. A request that runs has a :class:`Lease`: a sequence of its own that shares the
cells of the path to ``lease.node`` and owns those of ``lease.tail``. Sharing copies nothing: it
tags cells with one more sequence id. So at any time

    cells in use = tokens in all nodes + tokens in all tails

and :meth:`PrefixCache.check` holds that against the books. The idea of a radix tree over a KV
cache is that of RadixAttention (Zheng et al., SGLang, https://arxiv.org/abs/2312.07104). Knows
nothing of llama.cpp: it drives a :class:`CacheMemory`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from mofa_gguf.engine.cache.memory import CacheMemory
from mofa_gguf.engine.cache.prefix_tree import (
    Lease,
    Node,
    PrefixTree,
    common_prefix,
    holder_of,
    path_of,
)
from mofa_gguf.engine.events import emit

logger = logging.getLogger(__name__)


class PrefixCache:
    """Shares computed prefixes between requests and keeps them for later ones.

    ``n_cells``: size of the KV cache; ``n_sequences``: ids that may be used. With ``shares``
    False (memory that cannot drop or copy a part of a sequence) nothing is shared or kept.
    ``min_shared``: shorter common beginnings are not shared, and shorter sequences not kept.
    """

    def __init__(
        self,
        memory: CacheMemory,
        *,
        n_cells: int,
        n_sequences: int,
        shares: bool = True,
        min_shared: int = 1,
    ) -> None:
        self._memory = memory
        self.shares = shares
        self._min_shared = min_shared
        self._tree = PrefixTree(min_shared)
        self._free_ids = list(range(n_sequences - 1, -1, -1))
        self._leases: set[Lease] = set()
        self.n_cells = n_cells
        self.n_sequences = n_sequences
        self.n_used = 0
        self.before_evict: Callable[[Node], None] | None = None
        """Called with a leaf whose cells are given up."""

    @property
    def n_free(self) -> int:
        """Cells that hold nothing."""
        return self.n_cells - self.n_used

    @property
    def has_free_id(self) -> bool:
        """Whether a sequence can be opened without one that gives way."""
        return bool(self._free_ids)

    @property
    def n_evictable(self) -> int:
        """Cells that :meth:`make_room` could free."""
        pinned = {id(node) for lease in self._leases for node in path_of(lease.node)}
        return sum(len(node.tokens) for node in self._tree.nodes() if id(node) not in pinned)

    @property
    def n_latest(self) -> int:
        """Cells of the branch that was used last."""
        leaves = (node for node in self._tree.nodes() if not node.children)
        return max(((leaf.last_used, leaf.end) for leaf in leaves), default=(0, 0))[1]

    def n_available_beside(self, tokens: Sequence[int]) -> int:
        """Cells that are free or could be freed while the cached prefix of ``tokens`` stays."""
        node, n_into = self._tree.find(tokens)
        pinned = {id(each) for lease in self._leases for each in path_of(lease.node)}
        kept = pinned.union(id(each) for each in path_of(node))
        others = sum(len(each.tokens) for each in self._tree.nodes() if id(each) not in kept)
        rest = 0 if id(node) in pinned else len(node.tokens) - n_into
        return self.n_free + others + rest

    def match(self, tokens: Sequence[int]) -> int:
        """How many tokens from the beginning are in the tree."""
        node, n_into = self._tree.find(tokens)
        return node.start + n_into

    def open(self, tokens: Sequence[int]) -> Lease | None:
        """A new sequence that shares the longest cached prefix, at most all but the last token.

        None when every sequence id is in use by running requests.
        """
        node, n_into = self._tree.find(tokens[:-1]) if self.shares else (self._tree.root, 0)
        if n_into < len(node.tokens):
            node = self._tree.split(node, n_into) if n_into else node.parent or self._tree.root
        node.pins += 1  # before ids are freed, which may evict
        sequence = self._idle_holder(node)
        if sequence is None:
            sequence = self._take_id()
            if sequence is not None and node.end:
                self._memory.copy(holder_of(node), sequence, 0, node.end)
                if not self._memory.has_all(sequence, node.end):
                    self._memory.remove(sequence, 0, -1)
                    node.pins -= 1
                    node = self._tree.root
                    node.pins += 1
        if sequence is None:
            sequence = self._idle_holder(node)  # evicting may have made the node a leaf
        if sequence is None:
            node.pins -= 1
            return None
        lease = Lease(sequence, node)
        self._leases.add(lease)
        self._settle(node)
        self._tree.touch(node)
        return lease

    def extend(self, lease: Lease, tokens: Sequence[int]) -> None:
        """Note that ``tokens`` were computed behind the lease's last one."""
        lease.tail.extend(tokens)
        self.n_used += len(tokens)
        assert self.n_used <= self.n_cells

    def trim(self, lease: Lease, n_tokens: int) -> None:
        """Give back the cells behind the lease's first ``n_tokens``, which nobody else shares."""
        n_kept = n_tokens - lease.node.end
        assert 0 <= n_kept <= len(lease.tail)
        if n_kept < len(lease.tail):
            self._memory.remove(lease.sequence, n_tokens, -1)
            self.n_used -= len(lease.tail) - n_kept
            del lease.tail[n_kept:]

    def publish(self, lease: Lease) -> None:
        """Move the lease's tail into the tree, so that others share it from now on.

        What another request has computed in the meantime is shared and the own cells given back.
        """
        if not self.shares or not lease.tail or lease.n_tokens < self._min_shared:
            return
        node, rest = lease.node, lease.tail
        while rest and (child := node.children.get(self._tree.key(node, rest))) is not None:
            n_same = common_prefix(child.tokens, rest)
            start, end = child.start, child.start + n_same
            self._memory.remove(lease.sequence, start, end)
            self._memory.copy(holder_of(child), lease.sequence, start, end)
            self.n_used -= n_same
            node = self._tree.split(child, n_same) if n_same < len(child.tokens) else child
            rest = rest[n_same:]
        lease.node.pins -= 1
        lease.node = self._grow(node, rest, lease.sequence) if rest else node
        lease.node.pins += 1
        lease.tail = []
        self._settle(lease.node)
        self._tree.touch(lease.node)

    def close(self, lease: Lease, *, keep: bool = True) -> None:
        """End a lease; with ``keep`` its tokens stay cached for later requests."""
        if keep:
            self.publish(lease)
        self._leases.remove(lease)
        if lease.tail:
            self._memory.remove(lease.sequence, lease.node.end, -1)
            self.n_used -= len(lease.tail)
            lease.tail = []
        lease.node.pins -= 1
        if lease.node.holder != lease.sequence:
            self._release(lease.sequence)
        self._settle(lease.node)

    def make_room(self, n_cells: int) -> bool:
        """Evict what was used least recently until ``n_cells`` are free; False if they cannot."""
        while self.n_free < n_cells:
            leaf = self._oldest_leaf()
            if leaf is None:
                return False
            self._evict(leaf)
        return True

    def idle_leaves(self) -> list[Node]:
        """Leaves that no request runs on; least recently used first."""
        leaves = [node for node in self._tree.nodes() if not node.children and not node.pins]
        return sorted(leaves, key=lambda node: node.last_used)

    def on_the_way(self, tokens: Sequence[int]) -> Node:
        """The deepest node that has a part of ``tokens``."""
        return self._tree.find(tokens)[0]

    def evict(self, leaf: Node) -> None:
        """Give up the cells of an idle leaf."""
        assert not leaf.children
        assert not leaf.pins
        self._evict(leaf)

    def forget(self, leaf: Node) -> None:
        """Give up the cells of an idle leaf, and keep them nowhere else."""
        keep, self.before_evict = self.before_evict, None
        try:
            self.evict(leaf)
        finally:
            self.before_evict = keep

    def clear(self) -> None:
        """Forget everything, leases too: the memory was emptied."""
        self._tree = PrefixTree(self._min_shared)
        self._free_ids = list(range(self.n_sequences - 1, -1, -1))
        self._leases.clear()
        self.n_used = 0

    def check(self) -> None:
        """AssertionError if the books do not agree with the tree."""
        nodes = list(self._tree.nodes())
        in_tree = sum(len(node.tokens) for node in nodes)
        in_tails = sum(len(lease.tail) for lease in self._leases)
        assert in_tree + in_tails == self.n_used <= self.n_cells
        holders = [node.holder for node in nodes if node.holder is not None]
        assert len(holders) == len(set(holders)), "a sequence holds two leaves"
        for node in nodes:
            assert node.tokens, "an empty node"
            assert (node.holder is not None) == (not node.children), "holders are on leaves"
            assert node.parent is not None
            assert node.start == node.parent.end
            assert node.parent.children[self._tree.key(node.parent, node.tokens)] is node
            assert node.end >= self._min_shared, "too short to be shared"
        leased = {lease.sequence for lease in self._leases}
        for node in [self._tree.root, *nodes]:
            assert node.holder is None or not node.pins or node.holder in leased
            assert node.pins == sum(lease.node is node for lease in self._leases)
        in_use = leased.union(holders)
        assert in_use.isdisjoint(self._free_ids)
        assert len(in_use) + len(self._free_ids) == self.n_sequences

    def _grow(self, node: Node, tokens: list[int], sequence: int) -> Node:
        """Put ``tokens``, computed by ``sequence``, behind ``node``; the node they end in."""
        if node.holder == sequence and node.pins == 0:
            node.tokens.extend(tokens)  # its own leaf, and nobody else ends there
            node.saved = False
            return node
        former, node.holder = node.holder, None
        leaf = Node(tokens, node.end, node, holder=sequence)
        node.children[self._tree.key(node, tokens)] = leaf
        if former is not None and former != sequence and not self._is_leased(former):
            self._release(former)  # the new leaf's holder has the cells of this path too
        return leaf

    def _evict(self, leaf: Node) -> None:
        parent, holder = leaf.parent, leaf.holder
        assert parent is not None
        assert holder is not None
        if self.before_evict is not None:
            self.before_evict(leaf)
        del parent.children[self._tree.key(parent, leaf.tokens)]
        self.n_used -= len(leaf.tokens)
        emit(logger, "cache.evicted", n_cells=len(leaf.tokens), n_cells_free=self.n_free)
        if parent.children or parent is self._tree.root:
            self._release(holder)
        else:
            self._memory.remove(holder, leaf.start, -1)
            parent.holder = holder
            self._settle(parent)

    def _settle(self, leaf: Node) -> None:
        """Let a request that ends at a leaf hold it, if its holder runs no more: frees an id."""
        idle = self._idle_holder(leaf)
        heir = next((each.sequence for each in self._leases if each.node is leaf), None)
        if idle is not None and heir is not None:
            leaf.holder = heir
            self._release(idle)

    def _idle_holder(self, node: Node) -> int | None:
        """A leaf's sequence when no request runs on it: the next one may go on with it."""
        if node.holder is None or self._is_leased(node.holder):
            return None
        return node.holder

    def _take_id(self) -> int | None:
        while not self._free_ids:
            leaf = self._oldest_leaf()
            if leaf is None:
                return None
            self._evict(leaf)
        return self._free_ids.pop()

    def _release(self, sequence: int) -> None:
        self._memory.remove(sequence, 0, -1)
        self._free_ids.append(sequence)

    def _oldest_leaf(self) -> Node | None:
        return next(iter(self.idle_leaves()), None)

    def _is_leased(self, sequence: int) -> bool:
        return any(lease.sequence == sequence for lease in self._leases)

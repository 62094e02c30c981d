"""A KV cache of pretended cells that keeps to llama.cpp's rules and checks them."""

from __future__ import annotations


class FakeMemory:
    """Which cell each sequence has at each position; a cell with no sequence is free."""

    def __init__(self, n_cells: int) -> None:
        self.n_cells = n_cells
        self.cell_of: dict[tuple[int, int], int] = {}
        self.content: dict[int, tuple[int, ...]] = {}
        self._next_cell = 0

    @property
    def n_used(self) -> int:
        return len(set(self.cell_of.values()))

    def copy(self, source: int, target: int, start: int, end: int) -> None:
        assert source != target
        for position in range(start, end):
            assert (target, position) not in self.cell_of, "the target has a cell there"
            self.cell_of[target, position] = self.cell_of[source, position]

    def has_all(self, sequence: int, n_tokens: int) -> bool:
        return all((sequence, position) in self.cell_of for position in range(n_tokens))

    def remove(self, sequence: int, start: int, end: int) -> None:
        for key in [k for k in self.cell_of if k[0] == sequence and k[1] >= start]:
            if end < 0 or key[1] < end:
                del self.cell_of[key]

    def compute(self, sequence: int, position: int, token: int) -> None:
        """As a decode does: the token's cell depends on every token before it."""
        before: tuple[int, ...] = ()
        if position:
            before = self.content[self.cell_of[sequence, position - 1]]
        assert len(before) == position
        assert (sequence, position) not in self.cell_of
        cell = self.new_cell()
        self.cell_of[sequence, position] = cell
        self.content[cell] = (*before, token)
        assert self.n_used <= self.n_cells, "the cache is overfull"

    def new_cell(self) -> int:
        """A cell that no sequence has."""
        self._next_cell += 1
        return self._next_cell - 1

    def tokens(self, sequence: int) -> tuple[int, ...]:
        """What a sequence has read: the content of its last cell."""
        positions = sorted(p for s, p in self.cell_of if s == sequence)
        assert positions == list(range(len(positions))), "a hole in the sequence"
        for position in positions:
            assert len(self.content[self.cell_of[sequence, position]]) == position + 1
        return self.content[self.cell_of[sequence, positions[-1]]] if positions else ()

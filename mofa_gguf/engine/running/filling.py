"""Tokens that nobody sees, added to a batch because it is computed faster with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mofa_gguf.engine.models.model import Model
from mofa_gguf.engine.options import EngineOptions
from mofa_gguf.engine.planning.attention import TileCost, tile_cost
from mofa_gguf.engine.planning.facts import all_tensors
from mofa_gguf.engine.planning.repack import tokens_at_once
from mofa_gguf.engine.scheduling.policy import worth_adding
from mofa_gguf.engine.scheduling.scheduler import Piece


@dataclass(frozen=True)
class Filling:
    """Where such tokens go, and what they are good for here."""

    sequence: int
    """A sequence that the cache does not have."""
    at_once: int
    """Tokens that weights are multiplied with at a time; 0 where that has no say."""
    tiles: TileCost | None
    """What flash attention saves in tiles; None where nothing."""

    def n_tokens(self, pieces: Sequence[Piece], *, room: int) -> int:
        """How many to add to a step of ``pieces``, of ``room`` that are possible."""
        n_tokens = sum(len(piece.tokens) for piece in pieces)
        if n_tokens == 1:
            return 0
        for n in (self._for_tiles(pieces, n_tokens), self._for_products(n_tokens)):
            if 0 < n <= room:
                return n
        return 0

    def _for_tiles(self, pieces: Sequence[Piece], n_tokens: int) -> int:
        if self.tiles is None:
            return 0
        n_cells = sum(piece.start + len(piece.tokens) for piece in pieces)
        return self.tiles.n_filling(n_tokens, n_pairs=sum(map(_n_pairs, pieces)), n_cells=n_cells)

    def _for_products(self, n_tokens: int) -> int:
        return worth_adding(n_tokens, at_once=self.at_once)


def _n_pairs(piece: Piece) -> int:
    """Cells that the piece's tokens attend to, summed up: each to those before it and itself."""
    n_tokens = len(piece.tokens)
    return n_tokens * piece.start + n_tokens * (n_tokens + 1) // 2


def filling_for(model: Model, options: EngineOptions, *, sequence: int) -> Filling | None:
    """What adding tokens is good for with this model; None where nothing is gained."""
    if model.offload.n_layers:
        return None
    tensors = all_tensors(model.header)
    at_once = tokens_at_once(tensors) if options.repack else 0
    tiles = tile_cost(model.header, tensors) if options.flash_attn != "off" else None
    return Filling(sequence, at_once, tiles) if at_once or tiles is not None else None

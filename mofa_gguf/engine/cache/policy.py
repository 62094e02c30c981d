"""When cells leave the KV cache for the host's memory: plain functions of values."""

from __future__ import annotations

MIN_SHARED = 8
"""Shorter common beginnings are computed again. The first token that all texts have, and little
more, would tie conversations together: attention over a tile of cells more for each of them, and
one in the way of the others."""
MIN_WORTH_PARKING = 32
"""Shorter prefixes are computed again rather than kept in the host's memory."""
_IDLE_CELLS = 256


def idle_cells_allowed(*, n_active: int, n_latest: int) -> int:
    """Idle cells that may stay where attention goes over all of them.

    While nothing runs, the conversation that was last used (``n_latest`` cells) is in nobody's way.
    Moving a cell out and back costs as much as computing about a hundred tokens beside it.
    """
    return max(_IDLE_CELLS, n_active // 16 if n_active else n_latest)

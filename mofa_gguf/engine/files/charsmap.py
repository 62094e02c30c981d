"""SentencePiece's table of normalizations: no way through it leads outside of it.

The table is a double array (Kanda 2018): four bytes of its length, its nodes, and the texts that
leaves point to. llama.cpp (src/llama-vocab.cpp) ends the process where a walk leaves it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mofa_gguf.engine.files.header import ArraySummary, GGUFHeader


def check_charsmap(header: GGUFHeader, key: str, fail: Callable[[str], Exception]) -> None:
    """Raises what ``fail`` makes of a sentence where the table under ``key`` cannot be walked."""
    value = header.metadata[key]
    if isinstance(value, list):
        data = bytes(each % 256 for each in value if isinstance(each, int))
    elif isinstance(value, ArraySummary) and value.type_id in (0, 1):
        with header.path.open("rb") as file:
            file.seek(value.offset)
            data = file.read(value.length)
    else:
        raise fail(f"{key} is no list of bytes")
    size = int.from_bytes(data[:4], "little")
    if len(data) < 8 or size % 4 or size + 4 >= len(data) or data[-1]:
        raise fail(f"{key} is damaged")
    nodes = np.frombuffer(data, "<u4", count=size // 4, offset=4)
    if size and _leads_outside(nodes, len(data) - 4 - size):
        raise fail(f"{key} points outside of itself")


def _leads_outside(nodes: Any, n_text_bytes: int) -> bool:
    """Whether a walk from the root, over any text, can leave the nodes or the texts."""
    bases = (nodes >> 10).astype(np.int64) << ((nodes & (1 << 9)) >> 6).astype(np.int64)
    checks = nodes & ((1 << 31) | 0xFF)
    seen = np.zeros(len(nodes), bool)
    # Where each walk stands after a node's base was applied: its children lie at this ^ byte.
    front = np.asarray([int(bases[0])], np.int64)
    every = np.arange(1, 256, dtype=np.int64)
    while front.size:
        children = front[:, None] ^ every
        if children.max(initial=0) >= len(nodes):
            return True
        taken = children[checks[children] == every]
        taken = np.unique(taken[~seen[taken]])
        seen[taken] = True
        front = taken ^ bases[taken]
        leaves = front[(nodes[taken] >> 8) & 1 == 1]
        if leaves.max(initial=0) >= len(nodes):
            return True
        values = nodes[leaves] & ((1 << 31) - 1)
        if values.max(initial=0) >= n_text_bytes:
            return True
    return False

"""SentencePiece's precompiled character map: a double array and the replacements it points to.

Format: google/sentencepiece, src/normalizer.cc (a little-endian length, a Darts double array of
32-bit units, NUL-terminated replacement strings). llama.cpp ends the process when a walk leaves the
array, so every step that a walk could take is checked first.
"""

from __future__ import annotations

from mofa_gguf.convert.errors import TokenizerError

_BLOCK = 0xFF


def check_charsmap(data: bytes, name: str) -> None:
    """Raise TokenizerError unless every unit of the double array stays inside the map."""
    import numpy as np

    n_bytes = int.from_bytes(data[:4], "little")
    if len(data) < 4 or n_bytes % 4 or n_bytes < 4 or 4 + n_bytes >= len(data) or data[-1] != 0:
        raise TokenizerError(f"{name}: precompiled_charsmap is damaged")
    units = np.frombuffer(data, dtype="<u4", count=n_bytes // 4, offset=4).astype(np.int64)
    n_replacement_bytes = len(data) - 4 - n_bytes
    index = np.arange(len(units), dtype=np.int64)
    # Bits of a unit as in darts.h: 31 marks a value, 8 "has a leaf", 9 scales the offset.
    is_value = (units >> 31) & 1 == 1
    offset = (units >> 10) << ((units & (1 << 9)) >> 6)
    # A node's children lie in the block of 256 that its offset leads to.
    leads_out = ~is_value & (((index ^ offset) | _BLOCK) >= max(len(units), _BLOCK + 1))
    points_out = is_value & ((units & 0x7FFFFFFF) >= n_replacement_bytes)
    if bool(leads_out.any()) or bool(points_out.any()) or len(units) <= _BLOCK:
        raise TokenizerError(f"{name}: precompiled_charsmap points outside itself")

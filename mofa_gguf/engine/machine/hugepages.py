"""Huge pages for weights that are held in memory of our own (not mapped from the file).

Weights that the CPU's kernels lay out anew come into anonymous memory, page by page while they are
read. Linux gives two megabytes at a time where it is asked to (``MADV_HUGEPAGE``, madvise(2); its
policy in /sys/kernel/mm/transparent_hugepage must be "madvise" or "always"): one stream decoded 5
to 10 % faster then (0.4 B parameters in Q4_0, two cores). llama.cpp has no option for it, so the
memory is found in /proc/self/maps, between its making and its first use.
"""

from __future__ import annotations

import ctypes
import logging
import sys
from pathlib import Path

logger = logging.getLogger(__name__)

MIN_BYTES = 16 * 2**20
"""Smaller pieces of memory are left as they are."""
_MADV_HUGEPAGE = 14  # Linux, asm-generic/mman-common.h
_MAPS = Path("/proc/self/maps")

Span = tuple[int, int]


def large_spans(maps: str) -> set[Span]:
    """Beginning and end of each large piece of private anonymous memory in a list of mappings."""
    found: set[Span] = set()
    for line in maps.splitlines():
        fields = line.split(maxsplit=5)
        if len(fields) > 5 or not fields[1].startswith("rw-p"):
            continue  # it has a name, or is none of ours to write
        begin, end = (int(each, 16) for each in fields[0].split("-"))
        if end - begin >= MIN_BYTES:
            found.add((begin, end))
    return found


class HugePages:
    """Asks for huge pages for large memory that this process got since it was made."""

    def __init__(self) -> None:
        self._known = _spans()

    def ask(self) -> int:
        """Ask for what is new since the last time; the bytes that the system agreed to."""
        now = _spans()
        new, self._known = _grown(now, self._known), now
        return sum(end - begin for begin, end in new if _advise(begin, end))


def _grown(now: set[Span], before: set[Span]) -> list[Span]:
    """What is in no span of before; neighbours are listed as one, so a span may have grown."""
    found = []
    for begin, end in now - before:
        old = [each for each in before if each[0] < end and begin < each[1]]
        pieces = _outside((begin, end), old)
        found += [piece for piece in pieces if piece[1] - piece[0] >= MIN_BYTES]
    return sorted(found)


def _outside(span: Span, others: list[Span]) -> list[Span]:
    pieces, at = [], span[0]
    for begin, end in sorted(others):
        if at < begin:
            pieces.append((at, begin))
        at = max(at, end)
    return [*pieces, (at, span[1])] if at < span[1] else pieces


def _spans() -> set[Span]:
    if not sys.platform.startswith("linux"):
        return set()
    try:
        return large_spans(_MAPS.read_text("utf-8", "surrogateescape"))
    except OSError:
        return set()


def _advise(begin: int, end: int) -> bool:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    if libc.madvise(begin, end - begin, _MADV_HUGEPAGE) == 0:
        return True
    logger.info("no huge pages for %d bytes (errno %d)", end - begin, ctypes.get_errno())
    return False

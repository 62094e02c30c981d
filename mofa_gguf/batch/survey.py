"""The input, read twice: once to know it before anything is computed, once to work on it.

Some 17 bytes a line are kept of it, so that files of millions of lines do not fill the memory.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path

from mofa_gguf.batch.errors import DuplicateIds, InputUnusable
from mofa_gguf.batch.jobs import read_custom_id
from mofa_gguf.batch.records import digest

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_N_BUCKETS = 256


@dataclass(frozen=True)
class Survey:
    """What is known of an input: the digest of line n at ``digests[n - 1]``, 0 for a blank one."""

    path: Path
    digests: array[int]
    n_jobs: int

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """The lines that ask for something, with their numbers, from 1.

        What was added to the end of the file since the survey is left for another run.

        Raises:
            InputUnusable: the file cannot be read any more, or has changed.
        """
        n_seen = 0
        for number, line in islice(_lines_of(self.path), len(self.digests)):
            n_seen = number
            if (digest(line) if line else 0) != self.digests[number - 1]:
                raise self._changed(number)
            if line:
                yield number, line
        if n_seen < len(self.digests):
            raise self._changed(n_seen + 1)

    def _changed(self, number: int) -> InputUnusable:
        return InputUnusable(
            f"line {number} of {self.path} has changed since the batch began; "
            "put it back, or begin another output",
            path=self.path,
        )


def survey(path: Path) -> Survey:
    """Read an input through, and refuse it when two lines have the same ``custom_id``.

    Raises:
        InputUnusable: it cannot be read.
        DuplicateIds: two lines have the same ``custom_id``.
    """
    digests = array("Q")
    n_jobs = 0
    ids = _IdSet()
    for number, line in _lines_of(path):
        digests.append(digest(line) if line else 0)
        n_jobs += bool(line)
        custom_id = read_custom_id(number, line) if line else None
        if custom_id is not None:
            ids.add(custom_id)
    suspects = ids.seen_twice()
    if suspects:
        _refuse_duplicates(path, suspects)
    return Survey(path, digests, n_jobs)


class _IdSet:
    """Digests of custom_ids, eight bytes each; sorted in parts to find those that come twice."""

    def __init__(self) -> None:
        self._buckets = [array("Q") for _ in range(_N_BUCKETS)]

    def add(self, custom_id: str) -> None:
        value = _id_digest(custom_id)
        self._buckets[value % _N_BUCKETS].append(value)

    def seen_twice(self) -> set[int]:
        twice: set[int] = set()
        for bucket in self._buckets:
            ordered = sorted(bucket)
            twice.update(a for a, b in pairwise(ordered) if a == b)
        return twice


def _refuse_duplicates(path: Path, suspects: set[int]) -> None:
    """Look at the suspects' names themselves: two names can have the same digest."""
    first_lines: dict[str, int] = {}
    for number, line in _lines_of(path):
        custom_id = read_custom_id(number, line) if line else None
        if custom_id is None or _id_digest(custom_id) not in suspects:
            continue
        if custom_id in first_lines:
            raise DuplicateIds(path, custom_id, (first_lines[custom_id], number))
        first_lines[custom_id] = number


def _id_digest(custom_id: str) -> int:
    return digest(custom_id.encode("utf-8", errors="surrogatepass"))


def _lines_of(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines of a file without the white space around them, numbered from 1."""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if number == 1:
                    line = line.removeprefix(_BYTE_ORDER_MARK)
                yield number, line.strip()
    except OSError as error:
        raise InputUnusable(
            f"{path}: the input cannot be read ({error.strerror})", path=path
        ) from error

"""How the store tells what it is doing: conversions and downloads report to one callback."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mofa_gguf.convert import ConversionProgress


@dataclass(frozen=True)
class DownloadProgress:
    """How far a download is. Bytes count all files; ``file`` is the one being fetched."""

    repo: str
    file: str
    n_files_done: int
    n_files: int
    n_bytes_done: int
    n_bytes: int


@dataclass(frozen=True)
class ReadingProgress:
    """How far reading a checkpoint for its digest is (only the first time it is seen)."""

    n_bytes_done: int
    n_bytes: int


OnProgress = Callable[["ConversionProgress | DownloadProgress | ReadingProgress"], None]


def reading_progress(progress: OnProgress) -> Callable[[int, int], None]:
    """``progress`` in the form in which digests report."""

    def report(n_done: int, n_total: int) -> None:
        progress(ReadingProgress(n_bytes_done=n_done, n_bytes=n_total))

    return report

"""What conversions and downloads report, ready to show."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from mofa_gguf.convert import ConversionProgress
    from mofa_gguf.store import DownloadProgress, ReadingProgress

    AnyProgress = ConversionProgress | DownloadProgress | ReadingProgress


_COUNTED = ("writing", "reading the text")
"""Stages of the converter that are counted in bytes."""


class Step(NamedTuple):
    """How far a stage is, in bytes; ``n_total`` is 0 where bytes say nothing."""

    title: str
    n_done: int = 0
    n_total: int = 0
    detail: str = ""


def as_step(report: AnyProgress) -> Step:
    """A report of the store or the converter."""
    from mofa_gguf.convert import ConversionProgress

    if isinstance(report, ConversionProgress):
        if report.stage not in _COUNTED:  # the other stages are short
            return Step(report.stage)
        return Step(report.stage, report.n_bytes_done, report.n_bytes, report.tensor)

    from mofa_gguf.store import DownloadProgress

    if isinstance(report, DownloadProgress):
        detail = f"{report.file} ({min(report.n_files_done + 1, report.n_files)}/{report.n_files})"
        title = f"downloading {report.repo}"
        return Step(title, report.n_bytes_done, report.n_bytes, detail)
    return Step("checking what the checkpoint holds", report.n_bytes_done, report.n_bytes)

"""Progress of conversions and downloads: a bar on a terminal, a few plain lines otherwise."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from mofa_gguf.cli.output import console, size
from mofa_gguf.store import DownloadProgress, OnProgress, ReadingProgress

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from mofa_gguf.convert import ConversionProgress

    AnyProgress = ConversionProgress | DownloadProgress | ReadingProgress

_PLAIN_STEP = 0.25


@dataclass(frozen=True)
class _Step:
    """One report, ready to show."""

    title: str
    n_done: int
    n_total: int
    detail: str


class _View(Protocol):
    def show(self, step: _Step) -> None: ...


@contextmanager
def progress_view(*, quiet: bool = False) -> Iterator[OnProgress | None]:
    """A callback that shows progress on standard error; None when ``quiet``."""
    if quiet:
        yield None
        return
    if not sys.stderr.isatty():
        view: _View = _Lines()
        yield lambda report: view.show(_step(report))
        return
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    with Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        TextColumn("[dim]{task.fields[detail]}", markup=True),
        console=console(error=True),
    ) as bars:
        bar = _Bars(bars)
        yield lambda report: bar.show(_step(report))
        bar.finish()


def _step(report: AnyProgress) -> _Step:
    if isinstance(report, DownloadProgress):
        detail = f"{report.file} ({min(report.n_files_done + 1, report.n_files)}/{report.n_files})"
        title = f"downloading {report.repo}"
        return _Step(title, report.n_bytes_done, report.n_bytes, detail)
    if isinstance(report, ReadingProgress):
        return _Step("reading the checkpoint", report.n_bytes_done, report.n_bytes, "")
    return _Step(report.stage, report.n_bytes_done, report.n_bytes, report.tensor or "")


class _Bars:
    """A bar for each stage, the last one moving."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._title: str | None = None
        self._task: TaskID | None = None

    def show(self, step: _Step) -> None:
        if step.title != self._title:
            self.finish()
            self._title = step.title
            self._task = self._bars.add_task(step.title, total=step.n_total or None, detail="")
        if self._task is not None:
            self._bars.update(
                self._task,
                completed=step.n_done,
                total=step.n_total or None,
                detail=step.detail,
            )

    def finish(self) -> None:
        if self._task is not None:
            self._bars.update(self._task, detail="")
            self._task = None


class _Lines:
    """A line when a stage begins and at every quarter of it."""

    def __init__(self) -> None:
        self._title: str | None = None
        self._next = 0.0
        self._started = 0.0

    def show(self, step: _Step) -> None:
        if step.title != self._title:
            self._title = step.title
            self._next = _PLAIN_STEP
            self._started = time.monotonic()
            of = f" ({size(step.n_total)})" if step.n_total else ""
            print(f"{step.title}{of}", file=sys.stderr, flush=True)
        fraction = step.n_done / step.n_total if step.n_total else 0.0
        if fraction < self._next:
            return
        self._next = (fraction // _PLAIN_STEP + 1) * _PLAIN_STEP
        seconds = max(time.monotonic() - self._started, 1e-6)
        speed = f", {size(step.n_done / seconds)}/s" if seconds > 0.5 else ""
        print(f"{step.title}: {fraction:.0%}{speed}", file=sys.stderr, flush=True)

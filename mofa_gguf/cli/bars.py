"""Progress bars for a terminal. Imports rich, so it is imported when a bar is wanted."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.text import Text

from mofa_gguf.cli.output import console
from mofa_gguf.cli.steps import Step
from mofa_gguf.unfinished import Unfinished


class _Counted(ProgressColumn):
    """Another column, left empty for stages whose end is not known."""

    def __init__(self, column: ProgressColumn) -> None:
        super().__init__()
        self._column = column

    def render(self, task: Task) -> Text:
        """The column's text for a task."""
        shown = self._column.render(task) if task.total is not None else ""
        return shown if isinstance(shown, Text) else Text(str(shown))


class Bars:
    """A bar for each stage that is counted in bytes; the others show only while they last."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._title: str | None = None
        self._task: TaskID | None = None
        self._counted = False

    def show(self, step: Step) -> None:
        """Show how far a stage is; another title begins another bar."""
        if step.title != self._title or self._task is None:
            self.finish()
            self._title = step.title
            self._counted = step.n_total > 0
            self._task = self._progress.add_task(step.title, total=step.n_total or None, detail="")
        if self._counted:
            self._progress.update(
                self._task, completed=step.n_done, total=step.n_total, detail=step.detail
            )

    def finish(self) -> None:
        """The stage is over: a counted one keeps its bar."""
        if self._task is not None:
            if self._counted:
                self._progress.update(self._task, detail="")
                self._progress.stop_task(self._task)
            else:
                self._progress.remove_task(self._task)
            self._task = None


def _write(text: bytes) -> None:
    """Past Python's buffers, which may be in use at this moment."""
    os.write(sys.stderr.fileno(), text)


@contextmanager
def bars_on_terminal() -> Iterator[Bars]:
    """Bars on standard error, moving while the block runs."""
    shown = console(error=True)
    # Rich hides the cursor while bars move.
    end = b"\n" if shown.is_dumb_terminal else b"\x1b[?25h\n"
    with (
        Unfinished(lambda: _write(end)),
        Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=30),
            _Counted(DownloadColumn()),
            _Counted(TransferSpeedColumn()),
            _Counted(TimeRemainingColumn(compact=True, elapsed_when_finished=True)),
            TextColumn("{task.fields[detail]}", style="dim", markup=False),
            console=shown,
        ) as progress,
    ):
        bars = Bars(progress)
        try:
            yield bars
        finally:
            bars.finish()

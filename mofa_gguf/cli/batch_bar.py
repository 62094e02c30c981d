"""The bar of a batch on a terminal. Imports rich, so it is imported when a bar is wanted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mofa_gguf.batch import BatchReport
from mofa_gguf.cli.output import console


@contextmanager
def batch_bar() -> Iterator[Callable[[BatchReport], None]]:
    """A bar on standard error that shows each report it is called with."""
    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeRemainingColumn(compact=True, elapsed_when_finished=True),
        TextColumn("{task.fields[detail]}", style="dim", markup=False),
        console=console(error=True),
    ) as progress:
        task = progress.add_task("reading the input", total=None, detail="")

        def show(report: BatchReport) -> None:
            detail = f"{report.tokens_per_s:.0f} tokens/s" if report.completion_tokens else ""
            if report.n_failed:
                detail = f"{report.n_failed} failed {detail}".rstrip()
            progress.update(
                task,
                description="batch",
                completed=report.n_done,
                total=report.n_lines,
                detail=detail,
            )

        yield show

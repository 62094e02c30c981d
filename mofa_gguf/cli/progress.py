"""Progress of conversions and downloads: a bar on a terminal, a few plain lines otherwise."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mofa_gguf.cli.output import size
from mofa_gguf.cli.steps import Step, as_step

if TYPE_CHECKING:
    from mofa_gguf.store import OnProgress

_LINE_EVERY_S = 5.0


@contextmanager
def progress_view(*, quiet: bool = False) -> Iterator[OnProgress | None]:
    """A callback that shows progress on standard error; None when ``quiet``."""
    if quiet:
        yield None
    elif sys.stderr.isatty():
        from mofa_gguf.cli.bars import bars_on_terminal

        with bars_on_terminal() as bars:
            yield lambda report: bars.show(as_step(report))
    else:
        lines = _Lines()
        yield lambda report: lines.show(as_step(report))


class _Lines:
    """A line when a stage begins, and every few seconds of a long one."""

    def __init__(self) -> None:
        self._title: str | None = None
        self._started = 0.0
        self._said = 0.0

    def show(self, step: Step) -> None:
        now = time.monotonic()
        if step.title != self._title:
            self._title = step.title
            self._started = self._said = now
            of = f" ({size(step.n_total)})" if step.n_total else ""
            print(f"{step.title}{of}", file=sys.stderr, flush=True)
        if step.n_total == 0 or now - self._said < _LINE_EVERY_S:
            return
        self._said = now
        fraction = step.n_done / step.n_total
        speed = size(step.n_done / (now - self._started))
        print(f"{step.title}: {fraction:.0%}, {speed}/s", file=sys.stderr, flush=True)

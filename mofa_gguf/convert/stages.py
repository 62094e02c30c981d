"""The stages of a conversion, timed and told to the caller's observer."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator

from mofa_gguf.convert.report import ConversionProgress
from mofa_gguf.convert.writer import Written

Observer = Callable[[ConversionProgress], None]


class Stages:
    """Times the stages and tells the observer about them."""

    def __init__(self, observer: Observer | None) -> None:
        self.observer = observer
        self.seconds: dict[str, float] = {}
        self.n_tensors = self.n_bytes = 0

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """A block of work that is timed under its name."""
        self.tell(name, Written("", 0, 0))
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = time.perf_counter() - began

    def tell(self, stage: str, written: Written) -> None:
        """How far a stage is."""
        if self.observer is not None:
            self.observer(
                ConversionProgress(
                    stage,
                    written.tensor,
                    written.n_tensors,
                    self.n_tensors,
                    written.n_bytes,
                    self.n_bytes,
                )
            )


def available_cpus() -> int:
    """CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1

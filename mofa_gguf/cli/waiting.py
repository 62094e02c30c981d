"""A spinner on a terminal while a model loads or thinks; nothing otherwise."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from mofa_gguf.cli.output import console

T = TypeVar("T")


@contextmanager
def waiting(text: str) -> Iterator[None]:
    """Show ``text`` with a spinner on standard error while the block runs."""
    if not sys.stderr.isatty():
        yield
        return
    with console(error=True).status(text):
        yield


def waiting_for_first(items: Iterable[T], text: str = "loading the model") -> Iterator[T]:
    """The items; the spinner shows until the first one is there."""
    iterator = iter(items)
    with waiting(text):
        try:
            first = next(iterator)
        except StopIteration:
            return
    yield first
    yield from iterator

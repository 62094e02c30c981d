"""A spinner on a terminal while a model loads or thinks; nothing otherwise."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mofa_gguf.cli.output import console

if TYPE_CHECKING:
    from mofa_gguf.contract import ChatCompletionChunk


@contextmanager
def waiting(text: str) -> Iterator[None]:
    """Show ``text`` with a spinner on standard error while the block runs."""
    if not sys.stderr.isatty():
        yield
        return
    with console(error=True).status(text):
        yield


def waiting_for_text(
    chunks: Iterable[ChatCompletionChunk], text: str = "loading the model"
) -> Iterator[ChatCompletionChunk]:
    """The chunks; the spinner shows until one has something to show."""
    iterator = iter(chunks)
    held = []
    with waiting(text):
        for chunk in iterator:
            held.append(chunk)
            if any(not choice.delta.is_empty() for choice in chunk.choices):
                break
    yield from held
    yield from iterator

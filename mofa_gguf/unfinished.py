"""What is to be undone where this process ends in the middle of its work.

Ctrl-C as an exception can come between any two steps of Python, among them the making of a file and
the block that removes it; and where Python is called back (by weak references, the import system,
C), it is printed and forgotten. A program whose work is one file undoes what is unfinished and ends
at once: see :mod:`mofa_gguf.__main__`. Elsewhere what stands here is never asked for.
"""

from __future__ import annotations

import os
from collections.abc import Callable

_undo: dict[object, Callable[[], None]] = {}
_held: list[object] = []
_ending: list[int] = []


class Unfinished:
    """A block whose traces ``undo`` removes where the process ends within it.

    ``undo`` must bear being called at any moment, and not wait for another thread.
    """

    def __init__(self, undo: Callable[[], None]) -> None:
        self._undo = undo

    def begin(self) -> None:
        """The block begins."""
        _undo[self] = self._undo

    def finish(self) -> None:
        """There is nothing left to undo."""
        _undo.pop(self, None)

    def __enter__(self) -> None:
        self.begin()

    def __exit__(self, *_: object) -> None:
        self.finish()


class Whole:
    """A short block that is done whole or not at all: the process does not end within it."""

    def __enter__(self) -> None:
        _held.append(self)

    def __exit__(self, *_: object) -> None:
        _held.remove(self)
        if _ending:
            end(_ending[0])


def end(code: int) -> None:
    """End this process with ``code``, undoing what is unfinished; for a signal's handler.

    Within a :class:`Whole` block it returns, and the end of the block is the process's.
    """
    if _held:
        _ending.append(code)
        return
    for undo in reversed(list(_undo.values())):
        try:
            undo()
        except Exception:  # noqa: BLE001, S112 - nobody is left to hear of it, and others are to be undone
            continue
    os._exit(code)

"""Memory that several threads read: it is freed when the last of them is out."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mofa_gguf.engine.errors import EngineClosed

END_TIMEOUT_S = 5.0
"""How long :meth:`Keeping.end` waits for those within."""


class Keeping:
    """Knows which calls into llama.cpp are under way, since freed memory would end the process."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._n_within = 0
        self._over = False
        self._free: Callable[[], None] | None = None

    @contextmanager
    def within(self) -> Iterator[None]:
        """While the block runs nothing is freed. Raises EngineClosed once the end was asked for."""
        with self._changed:
            if self._over:
                raise EngineClosed
            self._n_within += 1
        try:
            yield
        finally:
            self._leave()

    def end(self, free: Callable[[], None], *, timeout_s: float = END_TIMEOUT_S) -> None:
        """Let nobody in any more, and call ``free`` once all are out; later calls do nothing.

        Who is not out after ``timeout_s`` calls it on leaving, and this returns without.
        """
        with self._changed:
            if self._over:
                return
            self._over = True
            if not self._changed.wait_for(lambda: not self._n_within, timeout_s):
                self._free = free
                return
        free()

    def _leave(self) -> None:
        with self._changed:
            self._n_within -= 1
            free = None if self._n_within else self._free
            self._changed.notify_all()
        if free is not None:
            free()

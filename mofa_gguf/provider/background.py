"""Threads that a process does not wait for at its end, but a pool does for a while."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Background:
    """Runs work on daemon threads and knows which of them are still at it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._threads: set[threading.Thread] = set()

    def start(self, work: Callable[[], None], name: str) -> None:
        """Run ``work`` on a thread of its own. Raises RuntimeError where the system has none."""

        def run() -> None:
            try:
                work()
            finally:
                with self._lock:
                    self._threads.discard(thread)

        thread = threading.Thread(target=run, name=f"mofa-gguf-{name}", daemon=True)
        with self._lock:  # what is joined has started
            thread.start()
            self._threads.add(thread)

    def join(self, timeout_s: float) -> list[str]:
        """Wait for all threads but the caller's; the names of those that are not done by then."""
        until = time.monotonic() + timeout_s
        with self._lock:
            threads = self._threads - {threading.current_thread()}
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))
        return [thread.name for thread in threads if thread.is_alive()]

"""The thread that tells a pool of time that went by."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from mofa_gguf.provider.background import Background

logger = logging.getLogger(__name__)


class Clock:
    """Calls ``passed`` at the time of the next event, on a thread that begins with the first one.

    Args:
        changed: notified whenever the next event may be another; its lock guards what decides that.
        background: what the thread runs on.
        next_event_s: when there is something to tell, asked under the lock; None: never.
        passed: is told the time, under the lock.
        afterwards: called when the lock is given back.
    """

    def __init__(
        self,
        changed: threading.Condition,
        background: Background,
        *,
        next_event_s: Callable[[float], float | None],
        passed: Callable[[float], None],
        afterwards: Callable[[], None],
    ) -> None:
        self._changed = changed
        self._background = background
        self._next_event_s = next_event_s
        self._passed = passed
        self._afterwards = afterwards
        self._runs = False
        self._stopped = False

    def wind(self) -> None:
        """Start the thread, if there is something to wait for; to be called under the lock."""
        if self._runs or self._next_event_s(time.monotonic()) is None:
            return
        try:
            self._background.start(self._tick, "clock")
            self._runs = True
        except RuntimeError as error:
            logger.warning("nothing ends by time until something else happens: %s", error)

    def stop(self) -> None:
        """End the thread; to be called under the lock."""
        self._stopped = True
        self._changed.notify_all()

    def _tick(self) -> None:
        while self._sleep_until_event():
            self._afterwards()

    def _sleep_until_event(self) -> bool:
        """Until the time of the next event, or something changes; False once it was stopped."""
        with self._changed:
            now = time.monotonic()
            event = self._next_event_s(now)
            if not self._stopped:
                # What lies further ahead than a lock can wait (centuries) is looked at again then.
                left = None if event is None else min(max(0.0, event - now), threading.TIMEOUT_MAX)
                self._changed.wait(left)
            now = time.monotonic()
            if event is not None and now >= event and not self._stopped:
                self._passed(now)
            return not self._stopped

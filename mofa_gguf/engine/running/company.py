"""Requests that come together start together.

A step that begins with the first of them computes its prompt alone, and it stays some tokens ahead
of the others: more steps in all, each as long as one that all are in.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sized

GATHER_S = 0.002
"""How long after one request another may come that belongs to it."""
LONGEST_S = 0.01


class Company:
    """Whether requests came in company of late, and the moment to wait for the rest of one."""

    def __init__(self) -> None:
        self._most = 0
        self._expected = False

    def note(self, n_active: int) -> None:
        """Note how many requests there are; none ends the company."""
        if n_active:
            self._most = max(self._most, n_active)
        elif self._most:
            self._expected, self._most = self._most > 1, 0

    def gather(self, changed: threading.Condition, arrived: Sized) -> None:
        """Wait until no more come, where company is to be expected. ``changed`` is held."""
        if not self._expected:
            return
        now = time.monotonic()
        deadline, until, n_seen = now + LONGEST_S, now, 0
        while now < deadline and (n_seen < len(arrived) or now < until):
            if n_seen < len(arrived):
                n_seen, until = len(arrived), now + GATHER_S
            changed.wait(max(0.0, min(until, deadline) - now))
            now = time.monotonic()

"""What this process has promised to models but does not hold yet.

The system tells what memory is free, but a model that is being loaded has not taken its part yet,
weights in a mapped file count as free although a model lives on them, and buffers are not there
before they are written to. So that two models are not both given the same memory, each load enters
what it is going to take here, and what the system does not see of it afterwards.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

_lock = threading.Lock()
_open: dict[int, Counter[str]] = {}
_next = 0
HOST = "CPU"


class Reservation:
    """One model's entry. Release it when the model is freed."""

    def __init__(self, bytes_of: Mapping[str, int]) -> None:
        global _next
        with _lock:
            _next += 1
            self._number = _next
            _open[self._number] = Counter(bytes_of)

    def settle(self, bytes_of: Mapping[str, int]) -> None:
        """The model is loaded: only this much of it is not seen by the system."""
        with _lock:
            if self._number in _open:
                _open[self._number] = Counter(bytes_of)

    def release(self) -> None:
        """The model is gone; may be called twice."""
        with _lock:
            _open.pop(self._number, None)


@contextmanager
def promised(bytes_of: Mapping[str, int]) -> Iterator[None]:
    """A block in which so much is kept for another model."""
    entry = Reservation(bytes_of)
    try:
        yield
    finally:
        entry.release()


def reserved(device: str = HOST) -> int:
    """Bytes that all entries together keep of a device."""
    with _lock:
        return sum(entry[device] for entry in _open.values())

"""Workers that should have had layers of a model but did not answer: are they back?"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Mapping

from mofa_gguf.engine.machine.rpc_protocol import WorkerGone, ask_devices

EVERY_S = 30.0
"""How often they are asked, while somebody wants to know."""
_TIMEOUT_S = 5.0


class Absentees:
    """Workers, by their names in the options, that did not answer when a model was loaded."""

    def __init__(self, addresses: Mapping[str, tuple[str, int]]) -> None:
        self.servers = tuple(addresses)
        self._addresses = addresses
        self._lock = threading.Lock()
        self._asked_s = time.monotonic()
        self._asking = False
        self._back = False

    @property
    def back(self) -> bool:
        """Whether one of them answered when it was last asked. Asks in the background, so that
        nobody waits for a machine that is not there."""
        with self._lock:
            due = time.monotonic() - self._asked_s >= EVERY_S
            if self._addresses and due and not self._asking and not self._back:
                # Where the system has no thread for it, the next one to want to know asks.
                with contextlib.suppress(RuntimeError):
                    threading.Thread(target=self._ask, name="mofa-gguf-absent", daemon=True).start()
                    self._asking = True
            return self._back

    def _ask(self) -> None:
        back = any(_answers(address) for address in self._addresses.values())
        with self._lock:
            self._back = back
            self._asked_s = time.monotonic()
            self._asking = False


def _answers(address: tuple[str, int]) -> bool:
    try:
        return bool(ask_devices(address, timeout_s=_TIMEOUT_S))
    except WorkerGone:
        return False

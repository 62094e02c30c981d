"""What goes in and out of a node, in plain values: the logic of nodes knows nothing of dora."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

Metadata = Mapping[str, Any]
"""What travels beside a message: text, numbers, truth values and lists of them, by name."""

Payload = str | list[list[float]]
"""A text, or vectors."""


@dataclass(frozen=True)
class Arrived:
    """A message: the elements of its array, as Python values."""

    port: str
    values: Sequence[object]
    metadata: Metadata = field(default_factory=dict)


@dataclass(frozen=True)
class Outgoing:
    """A message to send."""

    port: str
    payload: Payload
    metadata: Metadata = field(default_factory=dict)


Send = Callable[[Outgoing], None]


class App(Protocol):
    """A node's logic. Everything is called in one event loop, and nothing blocks it."""

    async def start(self) -> None:
        """Get ready; messages may arrive meanwhile."""

    def arrived(self, message: Arrived) -> None:
        """A message is there."""

    def closed(self, port: str) -> None:
        """Nothing more will come in at this port."""

    def restarted(self, node_id: str) -> None:
        """Another node died and was started anew."""

    def is_idle(self) -> bool:
        """Whether everything that arrived was dealt with."""

    def is_over(self) -> bool:
        """Whether no more work can come."""

    async def stop(self) -> None:
        """Give up what is under way and release everything."""

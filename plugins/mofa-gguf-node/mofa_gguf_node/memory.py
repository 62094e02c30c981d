"""The conversations an agent is in."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from mofa_gguf.host import AsyncChatSession


class SessionStore:
    """Conversations by name; at most ``limit``, of which the longest silent one goes first."""

    def __init__(self, make: Callable[[str | None], AsyncChatSession], limit: int) -> None:
        self._make = make
        self._limit = limit
        self._sessions: OrderedDict[str, AsyncChatSession] = OrderedDict()

    def get(self, name: str | None) -> AsyncChatSession:
        """The conversation of this name, begun if need be; without a name one of its own."""
        if name is None:
            return self._make(None)
        if name not in self._sessions:
            self._sessions[name] = self._make(name)
        self._sessions.move_to_end(name)
        if len(self._sessions) > self._limit:
            self._sessions.popitem(last=False)
        return self._sessions[name]

    def forget(self, name: str | None) -> None:
        """End the conversation of this name, if there is one."""
        if name is not None:
            self._sessions.pop(name, None)

    def __len__(self) -> int:
        return len(self._sessions)

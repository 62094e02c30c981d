"""A request to a provider node that is under way, and what was heard of it.

Replies are numbered. What comes before its turn waits, and what came already is let go, so that
whoever waits for the request hears every reply once and in its order, though messages are lost,
repeated or overtake each other on the way.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from mofa_gguf.contract import LLMError
from mofa_gguf_node.wire import Json

_MAX_DEATHS = 2
"""A request is asked again of a new provider node, but not of any number: it may be what kills
them."""


@dataclass
class Pending:
    """A request under way.

    Attributes:
        text: the message that asks for it.
        last_sign_s: the loop's time when the provider node last spoke of it.
        taken: whether the provider node has said that it has it.
        n_heard: how many replies came in their order: the number of the next one.
        n_deaths: how many provider nodes died while it was under way.
        n_unanswered: how often it was waited for in vain since the provider node last spoke of it.
    """

    text: str
    last_sign_s: float = float("-inf")
    taken: bool = False
    n_heard: int = 0
    n_deaths: int = 0
    n_unanswered: int = 0
    _early: dict[int, Json] = field(default_factory=dict)
    _heard: asyncio.Queue[Json | LLMError] = field(default_factory=asyncio.Queue)
    _asked_from: int = -1

    async def next(self, patience_s: float) -> Json | LLMError:
        """The next reply, or what became of the request; TimeoutError after ``patience_s``."""
        return await asyncio.wait_for(self._heard.get(), patience_s)

    def take(self, seq: int, reply: Json) -> None:
        """Take in the reply of this number."""
        self.taken = True
        if seq >= self.n_heard:
            self._early[seq] = reply
        while self.n_heard in self._early:
            self._heard.put_nowait(self._early.pop(self.n_heard))
            self.n_heard += 1

    def misses(self) -> bool:
        """Whether a reply is missing that was not missed before; later ones are there."""
        if not self._early or self._asked_from == self.n_heard:
            return False
        self._asked_from = self.n_heard
        return True

    def fail(self, error: LLMError) -> None:
        """Nothing more will be heard, for this reason."""
        self._heard.put_nowait(error)

    def outlives(self) -> bool:
        """The provider node died; whether another may be asked: nothing was heard yet."""
        self.taken = False
        self._early.clear()
        self._asked_from = -1
        return self.n_heard == 0 and self.n_deaths <= _MAX_DEATHS

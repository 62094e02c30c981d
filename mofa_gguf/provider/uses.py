"""Those who use a pool's models: what each waits for, and who went without a word."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future

from mofa_gguf.provider.actions import Ticket
from mofa_gguf.provider.loaded import LoadedModel


class Use:
    """One user's hold on a model, from asking for it until :meth:`release`.

    ``future`` gives the model, or raises why there is none. One that is dropped without a word, by
    a stream whose event loop was closed before it, ends with the next thing that happens.
    """

    def __init__(
        self,
        model: str,
        *,
        release: Callable[[Ticket, float | None], None],
        dropped: Callable[[Ticket], None],
    ) -> None:
        self.future: Future[LoadedModel] = Future()
        self.ticket = Ticket(model)
        self._release = release
        self._dropped = dropped

    def release(self, *, keep_alive_s: float | None = None) -> None:
        """Let go; may be called twice, and before the model was there."""
        self._release(self.ticket, keep_alive_s)

    def __del__(self) -> None:
        self._dropped(self.ticket)


class Uses:
    """The uses that are not over. Not safe for threads by itself, but for :meth:`drop`."""

    def __init__(self) -> None:
        # Futures and not the uses, so that one whom nobody has any more is noticed.
        self._futures: dict[Ticket, Future[LoadedModel]] = {}
        self._dropped: deque[Ticket] = deque()

    def begin(self, use: Use) -> None:
        """It is over with :meth:`end`."""
        self._futures[use.ticket] = use.future

    def future(self, ticket: Ticket) -> Future[LoadedModel]:
        """What the ticket's holder waits for."""
        return self._futures[ticket]

    def end(self, ticket: Ticket) -> Future[LoadedModel] | None:
        """Forget a use; None where it was over."""
        return self._futures.pop(ticket, None)

    def waiting(self) -> list[Future[LoadedModel]]:
        """The futures of those that have no model yet."""
        return [future for ticket, future in self._futures.items() if not ticket.admitted]

    def drop(self, ticket: Ticket) -> None:
        """Nobody has the use any more. Takes no lock: it may run within any line of a thread."""
        if ticket in self._futures:
            self._dropped.append(ticket)

    def left_behind(self) -> list[Ticket]:
        """End the uses that were dropped, but one that still waits, which has its answer first."""
        dropped = [self._dropped.popleft() for _ in range(len(self._dropped))]
        self._dropped.extend(ticket for ticket in dropped if not ticket.admitted)
        return [each for each in dropped if each.admitted and self.end(each) is not None]

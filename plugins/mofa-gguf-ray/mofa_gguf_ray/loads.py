"""How busy replicas are, as the router of one provider sees it. Not for several threads."""

from __future__ import annotations

from collections import Counter, OrderedDict, deque

_SENT_WITHIN_S = 1.0
"""A request that was assigned and not sent by then was called off in between."""
_MAX_EARLY = 1000


class Loads:
    """The requests in flight on each replica.

    Ray's own count follows only when a request is sent, and forgets after ten seconds without
    news: a burst would be assigned as if nobody else were there, and long answers would not count.
    """

    def __init__(self) -> None:
        self._assigned: dict[str, deque[float]] = {}
        self._replica_of: dict[str, str] = {}
        self._running: Counter[str] = Counter()
        self._early: OrderedDict[str, None] = OrderedDict()

    def of(self, replica: str, now_s: float) -> int:
        """The requests that are on their way to a replica or taken in by it."""
        waiting = self._assigned.get(replica, deque())
        while waiting and waiting[0] < now_s - _SENT_WITHIN_S:
            waiting.popleft()
        return len(waiting) + self._running[replica]

    def assigned(self, replica: str, now_s: float) -> None:
        """A request is to go to a replica."""
        self._assigned.setdefault(replica, deque()).append(now_s)

    def sent(self, replica: str) -> None:
        """The oldest request that was to go there is on its way to be taken in or rejected."""
        if self._assigned.get(replica):
            self._assigned[replica].popleft()

    def taken_in(self, request_id: str, replica: str) -> None:
        """A replica works on a request."""
        if request_id in self._early:
            del self._early[request_id]
        elif request_id not in self._replica_of:
            self._replica_of[request_id] = replica
            self._running[replica] += 1

    def ended(self, request_id: str) -> None:
        """A request is over; the news of that may come before that of its beginning."""
        replica = self._replica_of.pop(request_id, None)
        if replica is not None:
            self._running[replica] -= 1
            return
        self._early[request_id] = None
        while len(self._early) > _MAX_EARLY:
            self._early.popitem(last=False)

    def keep_only(self, replicas: frozenset[str]) -> None:
        """Forget the replicas that are not among these."""
        for request_id, replica in list(self._replica_of.items()):
            if replica not in replicas:
                del self._replica_of[request_id]
        for known in (self._assigned, self._running):
            for replica in [name for name in known if name not in replicas]:
                del known[replica]

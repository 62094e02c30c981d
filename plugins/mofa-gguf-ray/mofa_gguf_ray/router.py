"""The request routers that Ray Serve runs beside a provider; ``policy`` has what they decide by.

They are made by Ray from their names, in whichever process holds a handle, and run in the event
loop of its router.
"""

from __future__ import annotations

import itertools
import time
from typing import Any

from ray.serve._private.request_router import PowerOfTwoChoicesRequestRouter
from ray.serve.request_router import (
    LocalityMixin,
    MultiplexMixin,
    PendingRequest,
    ReplicaID,
    RequestRouter,
    RunningReplica,
)

from mofa_gguf_ray.loads import Loads
from mofa_gguf_ray.policy import PrefixTable, preferred
from mofa_gguf_ray.wire import Work

Ranks = list[list[RunningReplica]]


class PowerOfTwoRouter(LocalityMixin, MultiplexMixin, RequestRouter):  # type: ignore[misc]
    """Ray's own choice, the less busy of two; never a replica that a request has lost already.

    Unlike Ray's class, a choice is for the request it was made for, not for the oldest that waits.
    """

    async def choose_replicas(
        self,
        candidate_replicas: list[RunningReplica],
        pending_request: PendingRequest | None = None,
    ) -> Ranks:
        """Two replicas, of which the less busy is taken."""
        ranks: Ranks = await PowerOfTwoChoicesRequestRouter.choose_replicas(
            self, candidate_replicas, pending_request
        )
        work = _work_of(pending_request)
        if work is None or not work.avoid:
            return ranks
        left = [[r for r in rank if _name_of(r) not in work.avoid] for rank in ranks]
        others = [r for r in candidate_replicas if _name_of(r) not in work.avoid]
        return [rank for rank in left if rank] or ([others] if others else ranks)


class RoundRobinRouter(PowerOfTwoRouter):
    """One replica after the other."""

    def initialize_state(self, **_: Any) -> None:
        """What Ray calls once, with the router's options."""
        self._turns = itertools.count()

    async def choose_replicas(
        self,
        candidate_replicas: list[RunningReplica],
        pending_request: PendingRequest | None = None,
    ) -> Ranks:
        """The next replica, then what the others would be."""
        ranks = await super().choose_replicas(candidate_replicas, pending_request)
        work = _work_of(pending_request)
        usable = [r for r in candidate_replicas if work and _name_of(r) not in work.avoid]
        if not usable:
            return ranks
        return [[usable[next(self._turns) % len(usable)]], *ranks]


class PrefixRouter(PowerOfTwoRouter):
    """Where the beginning of the prompt was computed; Ray's own choice otherwise."""

    def initialize_state(self, *, slots: int) -> None:
        """What Ray calls once: how many requests a replica runs at once."""
        self._slots = slots
        self._table = PrefixTable()
        self._loads = Loads()

    async def choose_replicas(
        self,
        candidate_replicas: list[RunningReplica],
        pending_request: PendingRequest | None = None,
    ) -> Ranks:
        """The replica that has the beginning of the prompt, then what Ray would choose."""
        ranks = await super().choose_replicas(candidate_replicas, pending_request)
        work = _work_of(pending_request)
        if work is None:
            return ranks
        # The less busy of Ray's two, as counted here: Ray's own count comes later.
        by_load = [[replica] for rank in ranks for replica in sorted(rank, key=self._load_of)]
        if not work.prefixes:
            return by_load
        usable = {_name_of(r): r for r in candidate_replicas if _name_of(r) not in work.avoid}
        loads = {name: self._load_of(replica) for name, replica in usable.items()}
        chosen = preferred(
            work.prefixes[-1].n_chars, self._table.held(work.prefixes), loads, slots=self._slots
        )
        return by_load if chosen is None else [[usable[chosen]], *by_load]

    def on_send_request(self, replica_id: ReplicaID) -> None:
        """What Ray calls when a request is sent to a replica, to be taken in or rejected."""
        super().on_send_request(replica_id)
        self._loads.sent(replica_id.unique_id)

    def on_request_routed(
        self, pending_request: PendingRequest, replica_id: ReplicaID, result: Any
    ) -> None:
        """What Ray calls when a replica has taken a request in."""
        self._loads.taken_in(pending_request.metadata.internal_request_id, replica_id.unique_id)
        work = _work_of(pending_request)
        if work is not None and work.prefixes:
            self._table.add(work.prefixes, replica_id.unique_id)

    def on_request_completed(self, replica_id: ReplicaID, internal_request_id: str) -> None:
        """What Ray calls when a request has ended, in whatever way."""
        self._loads.ended(internal_request_id)

    def update_replicas(self, replicas: list[RunningReplica]) -> None:
        """What Ray calls when replicas have come or gone."""
        super().update_replicas(replicas)
        names = frozenset(_name_of(replica) for replica in replicas)
        self._table.keep_only(names)
        self._loads.keep_only(names)

    def _fulfill_next_pending_request(self, replica: RunningReplica, *more: Any) -> None:
        """What Ray calls with the choice that was made."""
        self._loads.assigned(_name_of(replica), time.monotonic())
        super()._fulfill_next_pending_request(replica, *more)

    def _load_of(self, replica: RunningReplica) -> int:
        """Requests in flight there: ours, or what the replica told of all, if that is more."""
        told = self.replica_queue_len_cache.get(replica.replica_id) or 0
        return max(told, self._loads.of(_name_of(replica), time.monotonic()))


ROUTERS = {
    "prefix": f"{__name__}.{PrefixRouter.__name__}",
    "power-of-two": f"{__name__}.{PowerOfTwoRouter.__name__}",
    "round-robin": f"{__name__}.{RoundRobinRouter.__name__}",
}


def _work_of(pending_request: PendingRequest | None) -> Work | None:
    if pending_request is None or not pending_request.args:
        return None
    work = pending_request.args[0]
    return work if isinstance(work, Work) else None


def _name_of(replica: RunningReplica) -> str:
    name: str = replica.replica_id.unique_id
    return name

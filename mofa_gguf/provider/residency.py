"""Which models are in memory: who may come in, who must go. Decides; loads and unloads nothing.

    absent ── found ──> queued ── room ──> loading ── loaded ──> ready ── leaves ──> absent
       └──────────────────── failed ─────────┘

A model's way is told to :class:`Residency` event by event, with the time of each; what is to be
done next comes back as actions. So every decision can be tested without a model or a thread.
Models that need room get it in the order in which they asked, and nobody overtakes: a model that
must give way to the first of them takes no new users until it has, so that nobody starves.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from mofa_gguf.provider.actions import Action, Admit, Find, Load, NoRoom, Refuse, Ticket, Unload
from mofa_gguf.provider.room import Room, State, Tenant, make_room
from mofa_gguf.quantities import FOREVER


class Stage(Enum):
    """Where a model is on its way."""

    ABSENT = "absent"
    FINDING = "finding"
    """Its file is looked for, converted or downloaded; it takes no memory yet."""
    QUEUED = "queued"
    """It waits for room."""
    LOADING = "loading"
    READY = "ready"
    LEAVING = "leaving"


@dataclass
class _Place:
    """What is known of one model."""

    name: str
    default_keep_alive_s: float
    keep_alive_s: float
    stage: Stage = Stage.ABSENT
    n_bytes: int = 0
    last_used_s: float = 0.0
    queued_at_s: float = 0.0
    users: int = 0
    waiting: list[Ticket] = field(default_factory=list)
    sent_away: bool = False
    """Asked to leave as soon as nobody uses it."""
    ran_out: bool = False
    """Memory ran out while it was loaded, though there should have been enough."""

    @property
    def takes_memory(self) -> bool:
        return self.stage in (Stage.LOADING, Stage.READY, Stage.LEAVING)

    def tenant(self) -> Tenant:
        state: State = "idle"
        if self.stage is Stage.LEAVING:
            state = "leaving"
        elif self.stage is Stage.LOADING or self.users > 0:
            state = "busy"
        return Tenant(self.name, self.n_bytes, self.last_used_s, state)


class Residency:
    """The models of one budget. Not safe for threads by itself.

    Args:
        keep_alive_s: each model's name, with how long it stays when nobody uses it.
        budget_bytes: what all of them may take together; None until it is known.
        strict: whether a model that is larger than the budget is refused even if it is alone.
        wait_s: how long a model waits for room that others use.
    """

    def __init__(
        self,
        keep_alive_s: dict[str, float],
        *,
        budget_bytes: int | None,
        strict: bool,
        wait_s: float,
    ) -> None:
        self.budget_bytes = budget_bytes
        self._strict = strict
        self._wait_s = wait_s
        self._places = {name: _Place(name, keep, keep) for name, keep in keep_alive_s.items()}
        self._queue: list[_Place] = []
        self._draining: frozenset[str] = frozenset()

    @property
    def used_bytes(self) -> int:
        """What the models in memory are estimated to take."""
        return sum(place.n_bytes for place in self._places.values() if place.takes_memory)

    def stage(self, model: str) -> Stage:
        """Where a model is."""
        return self._places[model].stage

    def n_users(self, model: str) -> int:
        """How many use it now."""
        return self._places[model].users

    def n_bytes(self, model: str) -> int:
        """What it is estimated to take; 0 before it was found."""
        return self._places[model].n_bytes

    def ask(self, ticket: Ticket, now_s: float) -> list[Action]:
        """Somebody wants to use a model."""
        self._places[ticket.model].waiting.append(ticket)
        return self._go_on(now_s)

    def leave(
        self, ticket: Ticket, now_s: float, *, keep_alive_s: float | None = None
    ) -> list[Action]:
        """The ticket's holder uses the model no more, or does not want to any more.

        ``keep_alive_s`` is how long the model stays after this use, in place of its own setting.
        """
        if ticket.over:
            return []
        ticket.over = True
        place = self._places[ticket.model]
        if not ticket.admitted:
            place.waiting.remove(ticket)
            return self._go_on(now_s)
        place.keep_alive_s = place.default_keep_alive_s if keep_alive_s is None else keep_alive_s
        place.users -= 1
        if place.users == 0:
            place.last_used_s = now_s
        return self._go_on(now_s)

    def found(self, model: str, n_bytes: int, now_s: float) -> list[Action]:
        """The model's file is there, and the model takes about so much."""
        place = self._places[model]
        place.n_bytes, place.queued_at_s = n_bytes, now_s
        place.stage = Stage.QUEUED
        self._queue.append(place)
        return self._go_on(now_s)

    def loaded(self, model: str, now_s: float) -> list[Action]:
        """The model can be used. Those who waited for it come in even if it must give way next."""
        place = self._places[model]
        place.stage, place.last_used_s, place.ran_out = Stage.READY, now_s, False
        return [*self._admit(place, now_s), *self._go_on(now_s)]

    def failed(self, model: str, now_s: float) -> list[Action]:
        """It was not found or not loaded: all who wait for it are refused, the next may try."""
        place = self._places[model]
        place.stage, place.sent_away, place.ran_out = Stage.ABSENT, False, False
        return [*self._refuse(place, None), *self._go_on(now_s)]

    def retry(self, model: str, now_s: float) -> list[Action] | None:
        """Memory ran out while the model was loaded: once more, when the idle have gone.

        None where that would not help: there are none, or it was tried.
        """
        place = self._places[model]
        if place.ran_out or all(tenant.state != "idle" for tenant in self._tenants()):
            return None
        place.stage, place.ran_out = Stage.QUEUED, True
        self._queue.insert(0, place)
        return self._go_on(now_s)

    def unloaded(self, model: str, now_s: float) -> list[Action]:
        """Its memory is free."""
        place = self._places[model]
        place.stage, place.sent_away = Stage.ABSENT, False
        return self._go_on(now_s)

    def send_away(self, model: str, now_s: float) -> list[Action]:
        """Unload a model as soon as those who use it now are done; who comes later waits."""
        place = self._places[model]
        place.sent_away = place.takes_memory
        return self._go_on(now_s)

    def passed(self, now_s: float) -> list[Action]:
        """Time went by."""
        return self._go_on(now_s)

    def next_event_s(self, now_s: float) -> float | None:
        """When :meth:`passed` should be told next, if nothing else happens; None: never."""
        ends = (place.queued_at_s + self._wait_s for place in self._queue)
        times = [end for end in ends if end > now_s]
        times += [
            place.last_used_s + place.keep_alive_s
            for place in self._places.values()
            if place.stage is Stage.READY and place.users == 0 and place.keep_alive_s != FOREVER
        ]
        return min(times, default=None)

    def check(self) -> None:
        """AssertionError if the books do not agree."""
        assert self.budget_bytes is None or not self._strict or self.used_bytes <= self.budget_bytes
        for place in self._places.values():
            assert place.users == 0 or place.stage is Stage.READY
            assert (place in self._queue) == (place.stage is Stage.QUEUED)
            assert not any(ticket.over or ticket.admitted for ticket in place.waiting)

    def _go_on(self, now_s: float) -> list[Action]:
        """All that can be done now, in order."""
        actions = self._late(now_s)
        actions += self._serve_queue(now_s)
        for place in self._places.values():
            if place.waiting and place.stage is Stage.ABSENT:
                place.stage = Stage.FINDING
                actions.append(Find(place.name))
            elif place.stage is Stage.READY:
                actions += self._admit_or_unload(place, now_s)
        return actions

    def _admit_or_unload(self, place: _Place, now_s: float) -> list[Action]:
        if place.waiting and not place.sent_away and place.name not in self._draining:
            return self._admit(place, now_s)
        if place.users:
            return []
        expired = place.keep_alive_s != FOREVER and now_s >= place.last_used_s + place.keep_alive_s
        return [self._unload(place)] if place.sent_away or expired else []

    def _admit(self, place: _Place, now_s: float) -> list[Action]:
        tickets, place.waiting = place.waiting, []
        place.users += len(tickets)
        place.last_used_s = now_s
        for ticket in tickets:
            ticket.admitted = True
        return [Admit(ticket) for ticket in tickets]

    def _unload(self, place: _Place) -> Unload:
        place.stage = Stage.LEAVING
        return Unload(place.name)

    def _serve_queue(self, now_s: float) -> list[Action]:
        """Room for those who wait for it, the first first."""
        actions: list[Action] = []
        self._draining = frozenset()
        while self._queue:
            place = self._queue[0]
            if not place.waiting:  # nobody wants it any more
                self._dequeue(place)
                continue
            room = self._room(place)
            if room is None:
                self._dequeue(place)
                actions += self._refuse(place, self._no_room(place, ()))
                continue
            if room.busy:
                self._draining = frozenset(room.idle + room.busy)
                break
            if room.idle or room.leaving:
                actions += [self._unload(self._places[name]) for name in room.idle]
                break
            self._queue.remove(place)
            place.stage = Stage.LOADING
            actions.append(Load(place.name))
        return actions

    def _room(self, place: _Place) -> Room | None:
        assert self.budget_bytes is not None
        if place.ran_out:
            names: dict[State, list[str]] = {"leaving": [], "idle": [], "busy": []}
            for tenant in self._tenants():
                names[tenant.state].append(tenant.name)
            return Room(tuple(names["leaving"]), tuple(names["idle"]))
        budget = self.budget_bytes
        if not self._strict:
            budget = max(budget, place.n_bytes)  # what is too large may still come in alone
        return make_room(place.n_bytes, budget, self._tenants())

    def _tenants(self) -> tuple[Tenant, ...]:
        return tuple(place.tenant() for place in self._places.values() if place.takes_memory)

    def _late(self, now_s: float) -> list[Action]:
        """Those who waited long enough for room that is in use are refused."""
        actions: list[Action] = []
        for place in list(self._queue):
            if now_s < place.queued_at_s + self._wait_s or not place.waiting:
                continue
            room = self._room(place)
            if place is self._queue[0] and (room is None or not room.busy):
                continue  # its turn has come
            self._dequeue(place)
            actions += self._refuse(place, self._no_room(place, self._tenants()))
        return actions

    def _no_room(self, place: _Place, in_use: tuple[Tenant, ...]) -> NoRoom:
        assert self.budget_bytes is not None
        waited_s = self._wait_s if in_use else None
        return NoRoom(place.name, place.n_bytes, self.budget_bytes, in_use, waited_s)

    def _dequeue(self, place: _Place) -> None:
        self._queue.remove(place)
        place.stage, place.ran_out = Stage.ABSENT, False

    def _refuse(self, place: _Place, no_room: NoRoom | None) -> list[Action]:
        tickets, place.waiting = place.waiting, []
        for ticket in tickets:
            ticket.over = True
        return [Refuse(ticket, no_room) for ticket in tickets]

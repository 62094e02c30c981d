"""Which models are in memory, decided without any: the policy and its laws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mofa_gguf.provider.actions import Action, Admit, Find, Load, Refuse, Ticket, Unload
from mofa_gguf.provider.residency import Residency, Stage
from mofa_gguf.provider.room import Room, State, Tenant, make_room
from mofa_gguf.quantities import FOREVER


def tenants(*rows: tuple[str, int, float, State]) -> list[Tenant]:
    return [Tenant(*row) for row in rows]


class TestMakeRoom:
    def test_where_there_is_room_nobody_goes(self) -> None:
        assert make_room(4, 10, tenants(("a", 6, 0, "idle"))) == Room()

    def test_the_least_recently_used_idle_model_goes_first(self) -> None:
        three = tenants(("a", 3, 7, "idle"), ("b", 3, 5, "idle"), ("c", 3, 6, "idle"))
        assert make_room(3, 10, three) == Room(idle=("b",))
        assert make_room(5, 10, three) == Room(idle=("b", "c"))

    def test_one_in_use_is_waited_for_only_if_the_idle_do_not_suffice(self) -> None:
        two = tenants(("a", 4, 1, "busy"), ("b", 4, 9, "idle"))
        assert make_room(5, 10, two) == Room(idle=("b",))
        assert make_room(7, 10, two) == Room(idle=("b",), busy=("a",))

    def test_what_leaves_already_counts_before_anybody_is_sent_away(self) -> None:
        three = tenants(("a", 4, 1, "busy"), ("b", 3, 2, "idle"), ("c", 3, 9, "leaving"))
        assert make_room(3, 10, three) == Room(leaving=("c",))
        assert make_room(6, 10, three) == Room(leaving=("c",), idle=("b",))

    def test_what_is_larger_than_the_budget_never_fits(self) -> None:
        assert make_room(11, 10, []) is None
        assert make_room(11, 10, tenants(("a", 4, 1, "idle"))) is None

    @given(
        n_bytes=st.integers(0, 30),
        budget=st.integers(0, 60),
        rows=st.lists(
            st.tuples(
                st.integers(0, 20), st.integers(0, 9), st.sampled_from(["leaving", "idle", "busy"])
            ),
            max_size=6,
        ),
    )
    def test_enough_goes_and_the_last_of_them_was_needed(
        self, n_bytes: int, budget: int, rows: list[tuple[int, int, State]]
    ) -> None:
        here = [Tenant(str(n), size, used, state) for n, (size, used, state) in enumerate(rows)]
        room = make_room(n_bytes, budget, here)
        if room is None:
            assert n_bytes > budget
            return
        gone = [*room.leaving, *room.idle, *room.busy]
        sizes = {tenant.name: tenant.n_bytes for tenant in here}
        left = sum(sizes.values()) - sum(sizes[name] for name in gone)
        assert left + n_bytes <= budget
        if gone:
            assert left + sizes[gone[-1]] + n_bytes > budget


@dataclass
class House:
    """Drives a residency as a provider would, with time and events in the test's hands."""

    sizes: dict[str, int]
    budget: int
    strict: bool = True
    wait_s: float = 60.0
    keep_alive: dict[str, float] = field(default_factory=dict)
    now: float = 0.0
    log: list[str] = field(default_factory=list)
    pending: list[Action] = field(default_factory=list)
    refused: list[Refuse] = field(default_factory=list)

    def __post_init__(self) -> None:
        keep = {name: self.keep_alive.get(name, FOREVER) for name in self.sizes}
        self.residency = Residency(
            keep, budget_bytes=self.budget, strict=self.strict, wait_s=self.wait_s
        )

    def take(self, actions: Sequence[Action]) -> None:
        for action in actions:
            if isinstance(action, Refuse):
                self.refused.append(action)
            elif not isinstance(action, Admit):
                if isinstance(action, Unload):
                    assert self.residency.n_users(action.model) == 0
                self.pending.append(action)
                self.log.append(f"{type(action).__name__.lower()} {action.model}")
        self.residency.check()

    def ask(self, model: str) -> Ticket:
        ticket = Ticket(model)
        self.take(self.residency.ask(ticket, self.now))
        return ticket

    def leave(self, ticket: Ticket, keep_alive_s: float | None = None) -> None:
        self.take(self.residency.leave(ticket, self.now, keep_alive_s=keep_alive_s))

    def finish(self, n: int = 0) -> None:
        """Let one of the things under way come to its end."""
        action = self.pending.pop(n)
        if isinstance(action, Find):
            self.take(self.residency.found(action.model, self.sizes[action.model], self.now))
        elif isinstance(action, Load):
            self.take(self.residency.loaded(action.model, self.now))
        elif isinstance(action, Unload):
            self.take(self.residency.unloaded(action.model, self.now))

    def settle(self) -> None:
        while self.pending:
            self.finish()

    def use(self, model: str) -> Ticket:
        """Ask for a model and wait until it is there."""
        self.now += 1
        ticket = self.ask(model)
        self.settle()
        return ticket

    def visit(self, model: str) -> None:
        """Use a model for a moment."""
        self.leave(self.use(model))

    def wait_until(self, now: float) -> None:
        self.now = now
        self.take(self.residency.passed(now))

    def ready(self) -> set[str]:
        return {name for name in self.sizes if self.residency.stage(name) is Stage.READY}


class TestResidency:
    def test_a_model_is_loaded_by_the_first_who_asks_and_once(self) -> None:
        house = House({"a": 4}, budget=10)
        tickets = [house.ask("a") for _ in range(3)]
        house.settle()
        assert house.log == ["find a", "load a"]
        assert all(ticket.admitted for ticket in tickets)
        assert house.residency.n_users("a") == 3

    def test_loading_one_blocks_nobody_else(self) -> None:
        house = House({"a": 4, "b": 4}, budget=10)
        house.visit("a")
        house.ask("b")
        house.finish()
        assert house.residency.stage("b") is Stage.LOADING
        assert house.ask("a").admitted

    def test_two_that_fit_load_at_the_same_time(self) -> None:
        house = House({"a": 4, "b": 4}, budget=10)
        house.ask("a"), house.ask("b")
        house.finish(), house.finish()
        assert house.residency.stage("a") is house.residency.stage("b") is Stage.LOADING

    def test_the_least_recently_used_gives_way(self) -> None:
        house = House({"a": 4, "b": 4, "c": 4}, budget=10)
        for model in ("a", "b", "a"):
            house.visit(model)
        house.log.clear()
        house.visit("c")
        assert house.log == ["find c", "unload b", "load c"]

    def test_the_next_loads_only_when_the_memory_is_free(self) -> None:
        house = House({"a": 6, "b": 6}, budget=10)
        house.visit("a")
        house.ask("b")
        house.finish()
        assert house.residency.stage("b") is Stage.QUEUED
        assert house.residency.used_bytes == 6
        house.finish()
        assert house.residency.stage("b") is Stage.LOADING

    def test_one_in_use_is_never_unloaded_but_takes_no_new_users(self) -> None:
        house = House({"a": 6, "b": 6}, budget=10)
        first = house.use("a")
        second = house.use("b")
        assert not second.admitted
        late = house.use("a")
        assert not late.admitted
        house.leave(first)
        house.settle()
        assert second.admitted
        house.leave(second)
        house.settle()
        assert late.admitted

    def test_models_get_room_in_the_order_in_which_they_asked(self) -> None:
        house = House({"a": 6, "b": 8, "c": 2}, budget=10)
        first = house.use("a")
        second, third = house.use("b"), house.use("c")
        assert not third.admitted  # c would fit, but b came first
        house.leave(first)
        house.settle()
        assert second.admitted
        assert third.admitted

    def test_waiting_for_room_ends_after_a_while_with_the_numbers(self) -> None:
        house = House({"a": 6, "b": 6}, budget=10, wait_s=5)
        house.use("a")
        ticket = house.use("b")
        asked = house.now
        assert house.residency.next_event_s(house.now) == asked + 5
        house.wait_until(asked + 4.9)
        assert not ticket.over
        house.wait_until(asked + 5)
        (refused,) = house.refused
        assert refused.ticket is ticket
        assert refused.no_room is not None
        assert (refused.no_room.n_bytes, refused.no_room.budget_bytes) == (6, 10)
        assert [tenant.name for tenant in refused.no_room.in_use] == ["a"]
        assert refused.no_room.waited_s == 5
        assert house.ask("a").admitted  # nobody is in its way any more

    def test_with_no_time_to_wait_it_is_refused_at_once(self) -> None:
        house = House({"a": 6, "b": 6}, budget=10, wait_s=0)
        house.use("a")
        assert house.use("b").over
        house = House({"a": 6, "b": 6}, budget=10, wait_s=0)
        house.visit("a")
        assert house.use("b").admitted  # an idle one needs no waiting for

    def test_what_never_fits_is_refused_at_once_and_nobody_goes_for_it(self) -> None:
        house = House({"a": 6, "b": 11}, budget=10)
        house.visit("a")
        ticket = house.use("b")
        assert ticket.over
        assert house.refused[0].no_room is not None
        assert house.refused[0].no_room.waited_s is None
        assert house.ready() == {"a"}

    def test_without_a_strict_budget_what_is_too_large_comes_in_alone(self) -> None:
        house = House({"a": 6, "b": 11}, budget=10, strict=False)
        house.visit("a")
        assert house.use("b").admitted
        assert house.ready() == {"b"}

    def test_a_failure_is_told_to_all_who_wait_and_the_next_tries_again(self) -> None:
        house = House({"a": 4}, budget=10)
        tickets = [house.ask("a"), house.ask("a")]
        house.pending.clear()
        house.take(house.residency.failed("a", house.now))
        assert [refusal.ticket for refusal in house.refused] == tickets
        assert house.refused[0].no_room is None
        assert house.use("a").admitted

    def test_where_memory_ran_out_after_all_the_idle_go_and_it_is_tried_once_more(self) -> None:
        house = House({"a": 2, "b": 2, "c": 2, "d": 2}, budget=10)
        house.visit("a")
        user = house.use("b")
        ticket = house.ask("c")
        house.finish()
        house.pending.clear()
        actions = house.residency.retry("c", house.now)
        assert actions is not None
        house.take(actions)
        house.settle()
        assert house.log[-2:] == ["unload a", "load c"]
        assert ticket.admitted
        assert not user.over
        house.ask("d")
        house.finish()
        house.pending.clear()
        assert house.residency.retry("d", house.now) is None  # b and c are in use

    def test_it_is_tried_once_more_and_not_for_ever(self) -> None:
        house = House({"a": 2, "b": 2, "c": 2}, budget=10)
        house.visit("a")
        house.ask("c")
        house.finish()
        house.pending.clear()
        house.take(house.residency.retry("c", house.now) or [])
        house.visit("b")
        house.settle()
        assert house.residency.stage("b") is Stage.READY
        house = House({"a": 2, "c": 2}, budget=10)
        house.visit("a")
        house.ask("c")
        house.finish()
        house.pending.clear()
        house.take(house.residency.retry("c", house.now) or [])
        house.finish()
        house.pending.clear()
        assert house.residency.retry("c", house.now) is None
        house.take(house.residency.failed("c", house.now))
        assert len(house.refused) == 1

    def test_who_gives_up_waiting_takes_nothing(self) -> None:
        house = House({"a": 4}, budget=10)
        ticket = house.ask("a")
        house.leave(ticket)
        house.leave(ticket)
        house.settle()
        assert house.residency.used_bytes == 0

    def test_keep_alive_counts_from_the_end_of_the_last_use(self) -> None:
        house = House({"a": 4}, budget=10, keep_alive={"a": 30})
        ticket = house.use("a")
        house.wait_until(100)
        assert house.ready() == {"a"}
        house.leave(ticket)
        assert house.residency.next_event_s(house.now) == 130
        house.wait_until(129.9)
        assert house.ready() == {"a"}
        house.wait_until(130)
        assert house.log[-1] == "unload a"

    def test_a_request_may_say_how_long_for_itself(self) -> None:
        house = House({"a": 4}, budget=10, keep_alive={"a": 30})
        house.leave(house.use("a"), keep_alive_s=0)
        house.settle()
        assert house.ready() == set()
        house.leave(house.use("a"), keep_alive_s=FOREVER)
        house.wait_until(1e6)
        assert house.ready() == {"a"}
        house.visit("a")  # the model's own word holds again
        house.wait_until(2e6)
        house.settle()
        assert house.ready() == set()

    def test_one_that_is_sent_away_goes_when_its_users_are_done(self) -> None:
        house = House({"a": 4}, budget=10)
        ticket = house.use("a")
        house.take(house.residency.send_away("a", house.now))
        assert house.ready() == {"a"}
        late = house.ask("a")
        house.leave(ticket)
        house.settle()
        assert late.admitted
        assert house.log == ["find a", "load a", "unload a", "find a", "load a"]

    def test_those_who_waited_for_a_load_are_served_before_it_gives_way(self) -> None:
        house = House({"a": 6, "b": 6}, budget=10)
        first = house.ask("a")
        house.finish()
        second = house.ask("b")
        house.finish(1)  # b is found while a loads
        house.finish()
        assert first.admitted
        assert not second.admitted
        house.leave(first)
        house.settle()
        assert second.admitted


MODELS = {"a": 2, "b": 3, "c": 5, "d": 7, "e": 9}
EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.sampled_from(sorted(MODELS))),
        st.tuples(st.just("leave"), st.integers(0, 99)),
        st.tuples(st.just("finish"), st.integers(0, 99)),
        st.tuples(st.just("fail"), st.integers(0, 99)),
        st.tuples(st.just("run out"), st.integers(0, 99)),
        st.tuples(st.just("pass"), st.integers(0, 40)),
        st.tuples(st.just("send away"), st.sampled_from(sorted(MODELS))),
    ),
    max_size=120,
)


def play(house: House, event: str, value: object, users: list[Ticket]) -> None:
    """One event of a random history."""
    if event == "ask":
        users.append(house.ask(str(value)))
    elif event == "send away":
        house.take(house.residency.send_away(str(value), house.now))
    elif event == "pass":
        assert isinstance(value, int)
        house.wait_until(house.now + value)
    elif event == "leave" and users:
        assert isinstance(value, int)
        house.leave(users.pop(value % len(users)))
    elif house.pending:
        assert isinstance(value, int)
        n = value % len(house.pending)
        action = house.pending[n]
        if event in ("fail", "run out") and isinstance(action, Find | Load):
            del house.pending[n]
            again = None
            if event == "run out" and isinstance(action, Load):
                again = house.residency.retry(action.model, house.now)
            if again is None:
                again = house.residency.failed(action.model, house.now)
            house.take(again)
        else:
            house.finish(n)


@settings(max_examples=150, deadline=None)
@given(events=EVENTS, budget=st.integers(2, 16), wait_s=st.sampled_from([0.0, 20.0, 1e9]))
def test_whatever_comes_the_budget_holds_and_nobody_in_use_is_unloaded(
    events: list[tuple[str, object]], budget: int, wait_s: float
) -> None:
    house = House(MODELS, budget=budget, wait_s=wait_s, keep_alive={"a": 0, "b": 15})
    users: list[Ticket] = []
    for event, value in events:
        play(house, event, value, users)  # take() holds the laws after each


@settings(max_examples=100, deadline=None)
@given(events=EVENTS, budget=st.integers(9, 16))
def test_nobody_starves_where_every_use_ends(events: list[tuple[str, object]], budget: int) -> None:
    house = House(MODELS, budget=budget, wait_s=1e9)
    users: list[Ticket] = []
    for event, value in events:
        play(house, event, value, users)
    # A steady stream of others for a and b goes on while the one who waits is served: each use
    # lasts three rounds, and what is under way comes to its end.
    waiting = house.ask("d")
    for n_round in range(60):
        if waiting.admitted:
            return
        users += [house.ask("a"), house.ask("b")]
        if house.pending:
            house.finish(n_round % len(house.pending))
        while len(users) > 6:
            house.leave(users.pop(0))
    pytest.fail("a model that fits was never loaded")

"""Ray's request routers as they are made of our policy, over replicas that only have a name."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pytest
from mofa_gguf_ray.prefixes import Prefix
from mofa_gguf_ray.router import ROUTERS, PowerOfTwoRouter, PrefixRouter, RoundRobinRouter
from mofa_gguf_ray.wire import Work
from ray.serve._private.common import DeploymentHandleSource, DeploymentID, RequestMetadata
from ray.serve.request_router import PendingRequest, ReplicaID

DEPLOYMENT = DeploymentID("gguf", "app")
PROMPT = tuple(Prefix(key, 1000 * key) for key in (1, 2, 3))


@dataclass
class FakeReplica:
    """A replica with nothing to do."""

    name: str
    max_ongoing_requests: int = 80
    node_id: str = "node"
    availability_zone: str | None = None
    multiplexed_model_ids: frozenset[str] = frozenset()

    @property
    def replica_id(self) -> ReplicaID:
        return ReplicaID(self.name, DEPLOYMENT)

    async def get_queue_len(self, *, deadline_s: float) -> int:
        return 0


def request(
    name: str, prefixes: tuple[Prefix, ...] = (), avoid: Iterable[str] = ()
) -> PendingRequest:
    work = Work("chat", prefixes=prefixes, avoid=frozenset(avoid))
    metadata = RequestMetadata(request_id=name, internal_request_id=name, call_method="work")
    return PendingRequest(args=[work], kwargs={}, metadata=metadata)


async def router_over(kind: type[Any], names: str, **options: Any) -> tuple[Any, list[Any]]:
    router = kind(
        deployment_id=DEPLOYMENT,
        handle_source=DeploymentHandleSource.UNKNOWN,
        use_replica_queue_len_cache=True,
    )
    router.initialize_state(**options)
    replicas = [FakeReplica(name) for name in names]
    router.update_replicas(replicas)
    await asyncio.sleep(0)
    return router, replicas


async def chosen(router: Any, replicas: list[Any], asked: PendingRequest) -> list[str]:
    """The names in the order in which they would be tried."""
    ranks = await router.choose_replicas(replicas, asked)
    return [replica.name for rank in ranks for replica in rank]


async def test_a_prompt_goes_where_its_beginning_was_computed() -> None:
    router, replicas = await router_over(PrefixRouter, "abc", slots=8)
    first = request("r1", PROMPT[:2])
    router.on_request_routed(first, replicas[1].replica_id, None)
    router.on_request_completed(replicas[1].replica_id, "r1")
    for n in range(20):
        assert (await chosen(router, replicas, request(f"s{n}", PROMPT)))[0] == "b"
    others = {(await chosen(router, replicas, request("t")))[0] for _ in range(50)}
    assert others == {"a", "b", "c"}


async def test_a_busy_replica_gets_no_more_and_a_lost_one_nothing() -> None:
    router, replicas = await router_over(PrefixRouter, "ab", slots=8)
    for n in range(8):
        router.on_request_routed(request(f"r{n}", PROMPT), replicas[0].replica_id, None)
    assert (await chosen(router, replicas, request("s", PROMPT)))[0] == "b"
    for n in range(8):
        router.on_request_completed(replicas[0].replica_id, f"r{n}")
    assert (await chosen(router, replicas, request("s", PROMPT)))[0] == "a"
    assert await chosen(router, replicas, request("s", PROMPT, avoid="a")) == ["b"]
    router.update_replicas(replicas[1:])
    assert set(await chosen(router, replicas[1:], request("s", PROMPT))) == {"b"}


async def test_a_burst_is_spread_before_anything_is_sent() -> None:
    router, replicas = await router_over(PrefixRouter, "ab", slots=8)
    firsts = []
    for n in range(8):
        asked = request(f"r{n}")
        ranks = await router.choose_replicas(replicas, asked)
        firsts.append(ranks[0][0].name)
        router._fulfill_next_pending_request(ranks[0][0], asked.metadata)
    assert firsts.count("a") == firsts.count("b") == 4


async def test_turns_are_taken_in_order() -> None:
    router, replicas = await router_over(RoundRobinRouter, "abc")
    firsts = [(await chosen(router, replicas, request("r")))[0] for _ in range(6)]
    assert firsts == ["a", "b", "c", "a", "b", "c"]
    firsts = [(await chosen(router, replicas, request("r", avoid="b")))[0] for _ in range(4)]
    assert set(firsts) == {"a", "c"}


@pytest.mark.parametrize("kind", [PowerOfTwoRouter, RoundRobinRouter, PrefixRouter])
async def test_lost_replicas_are_passed_over_unless_there_are_no_others(kind: type[Any]) -> None:
    options = {"slots": 8} if kind is PrefixRouter else {}
    router, replicas = await router_over(kind, "abcd", **options)
    for _ in range(30):
        assert set(await chosen(router, replicas, request("r", avoid="abc"))) == {"d"}
    assert await chosen(router, replicas, request("r", avoid="abcd"))


def test_every_routing_of_the_options_has_its_router() -> None:
    from mofa_gguf_ray.settings import Routing

    assert set(ROUTERS) == set(Routing.__args__)  # type: ignore[attr-defined]

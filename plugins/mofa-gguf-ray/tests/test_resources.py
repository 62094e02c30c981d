"""What a replica takes of a machine."""

from __future__ import annotations

from pathlib import Path

import pytest
from mofa_gguf_ray.errors import Failure
from mofa_gguf_ray.resources import (
    Machine,
    Planned,
    Share,
    check_room,
    cores_for,
    plan_here,
    replicas_on_one,
    settled,
)
from mofa_gguf_ray.settings import ClusterOptions

from mofa_gguf import GGUFConfig
from mofa_gguf.contract import QuotaExceeded

GIB = 2**30
SMALL, LARGE = Machine("small", 2, 0, 4 * GIB), Machine("large", 16, 1, 64 * GIB)
DEMO = GGUFConfig(model="demo", n_threads=1)


@pytest.mark.parametrize(
    ("options", "n_threads", "machines", "cores"),
    [
        ({"cpus": 1.5}, None, [LARGE], 1.5),
        ({"replicas": 2}, 3, [LARGE], 3),
        ({"replicas": 2}, None, [LARGE], 8),
        ({"replicas": 2}, None, [SMALL, SMALL], 2),
        ({"replicas": 4}, None, [SMALL], 1),
        ({"replicas": 1}, None, [SMALL, LARGE], 16),
        ({"replicas": {"min": 1, "max": 4}}, None, [LARGE], 4),
        ({"replicas": 1}, None, [], 1),
    ],
)
def test_cores_are_told_or_shared_evenly(
    options: dict[str, object], n_threads: int | None, machines: list[Machine], cores: float
) -> None:
    gguf = GGUFConfig(model="demo", n_threads=n_threads)
    assert cores_for(gguf, ClusterOptions.model_validate(options), machines) == cores


def test_machines_share_the_replicas_evenly() -> None:
    assert replicas_on_one(ClusterOptions.model_validate({"replicas": 5}), 2) == 3
    assert replicas_on_one(ClusterOptions.model_validate({"replicas": 5}), 0) == 5
    one_each = ClusterOptions.model_validate({"replicas": 5, "max_replicas_per_node": 1})
    assert replicas_on_one(one_each, 2) == 1


def test_a_replica_that_fits_nowhere_is_refused_with_the_numbers() -> None:
    check_room(Share(2, 0, 4 * GIB), [SMALL, LARGE])
    check_room(Share(16, 1, 64 * GIB), [SMALL, LARGE])
    with pytest.raises(QuotaExceeded, match=r"small has 2 cores, 4\.0 GiB") as caught:
        check_room(Share(1, 0, 5 * GIB), [SMALL])
    assert caught.value.n_bytes_needed == 5 * GIB
    assert caught.value.n_bytes_free == 4 * GIB
    with pytest.raises(QuotaExceeded, match="2 GPUs"):
        check_room(Share(1, 2), [SMALL, LARGE])


def test_ray_is_told_of_a_share_in_its_own_words() -> None:
    assert Share(1.5, 2, GIB).actor_options() == {"num_cpus": 1.5, "num_gpus": 2, "memory": GIB}
    assert Share(1).actor_options() == {"num_cpus": 1, "num_gpus": 0}


def test_all_replicas_get_the_same_context_and_threads() -> None:
    made = settled(GGUFConfig(model="demo"), Planned(1, 640), 2.5)
    assert (made.n_ctx, made.n_threads) == (640, 2)
    told = settled(GGUFConfig(model="demo", n_ctx=99, n_threads=1), Planned(1, 640), 2.5)
    assert (told.n_ctx, told.n_threads) == (99, 1)


def test_memory_is_what_the_load_plan_says(tmp_path: Path) -> None:
    small, large = (
        plan_here(DEMO.model_copy(update={"n_ctx": n, "cache_dir": tmp_path}), 1)
        for n in (256, 2048)
    )
    assert isinstance(small, Planned)
    assert isinstance(large, Planned)
    assert (small.n_ctx, large.n_ctx) == (256, 2048)
    assert 2**28 < small.memory_bytes < large.memory_bytes < GIB


def test_a_model_that_is_not_there_is_told_as_the_contract_does() -> None:
    failure = plan_here(GGUFConfig(model="/nowhere/m.gguf"), 1)
    assert isinstance(failure, Failure)
    assert failure.kind == "ModelNotFound"


def test_several_models_reserve_their_budget() -> None:
    several = GGUFConfig(models={"a": "demo"}, memory_budget="1GiB")
    planned = plan_here(several, 1)
    assert isinstance(planned, Planned)
    assert planned.memory_bytes > GIB

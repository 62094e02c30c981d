"""What goes where, on machines that are pretended: plain functions of values."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mofa_gguf.engine.planning.costs import Compute, Costs
from mofa_gguf.engine.planning.facts import LayerFacts, ModelFacts
from mofa_gguf.engine.planning.placement import Budget, assign, balanced, split_by
from mofa_gguf.engine.planning.plan import Plan, make_plan
from mofa_gguf.engine.planning.search import GOOD_CTX, Wishes

MIB = 2**20


def facts(
    n_layers: int = 8,
    *,
    layer: int = 100 * MIB,
    experts: int = 0,
    kv: int = 1024,
    n_ctx_train: int = 32768,
    output: int = 50 * MIB,
) -> ModelFacts:
    """A model of even layers; ``kv`` values of K and as many of V for each token and layer."""
    each = LayerFacts(layer + experts, experts, kv, kv)
    return ModelFacts(
        name="model.gguf",
        architecture="pretended",
        layers=(each,) * n_layers,
        n_input_bytes=50 * MIB,
        n_output_bytes=output,
        n_embd=1024,
        n_ff=4096,
        n_heads=8,
        n_vocab=1000,
        n_merges=0,
        n_ctx_train=n_ctx_train,
        n_parameters=(n_layers * (layer + experts) + 2 * output) // 2,
        n_file_bytes=n_layers * (layer + experts) + 2 * output,
    )


COSTS = Costs(Compute(((0, 20 * MIB), (65536, 84 * MIB))), 1 * MIB, 9 * MIB)
HOST = Budget("CPU", 64 * 2**30)


def plan(
    model: ModelFacts,
    *devices: Budget,
    host: Budget = HOST,
    **wishes: object,
) -> Plan:
    return make_plan(model, COSTS, host=host, devices=devices, wishes=Wishes(**wishes))  # type: ignore[arg-type]


def gpu(n_mib: int, name: str = "GPU0", *, remote: bool = False) -> Budget:
    return Budget(name, n_mib * MIB, remote=remote)


def test_without_devices_everything_is_on_the_host() -> None:
    made = plan(facts(), n_gpu_layers="all")
    assert made.fits
    assert made.n_gpu_layers == 0
    assert made.host.n_layers == made.n_total == 9
    assert made.host.weights == 8 * 100 * MIB + 2 * 50 * MIB
    assert made.n_ctx == 32768
    assert made.devices == ()


def test_a_large_gpu_gets_all_layers_and_the_trained_context() -> None:
    made = plan(facts(), gpu(20_000))
    assert (made.n_gpu_layers, made.n_ctx) == (9, 32768)
    assert made.host.weights == 50 * MIB  # the embeddings, which are looked up by the CPU
    assert made.devices[0].weights == 850 * MIB
    assert made.devices[0].cache == 8 * 2 * 1024 * 2 * 32768
    assert "all 9 layers fit on GPU0" in made.reasons


def test_a_small_gpu_gets_the_last_layers_that_fit_with_a_usable_context() -> None:
    made = plan(facts(), gpu(500))
    # 24 MiB of buffers at 4096 tokens; a layer takes 100 and its cache 16.
    assert made.n_ctx >= GOOD_CTX
    assert made.n_gpu_layers == 4
    assert made.devices[0].n_bytes <= 500 * MIB
    assert made.host.weights == (50 + 5 * 100) * MIB


def test_more_context_is_chosen_only_if_it_costs_no_layer() -> None:
    made = plan(facts(), gpu(1500))
    assert made.n_gpu_layers == 9
    assert GOOD_CTX < made.n_ctx < 32768
    step = plan(facts(), gpu(1500), n_ctx=made.n_ctx + 256)
    assert step.n_gpu_layers < 9


def test_a_gpu_with_room_for_nothing_is_left_alone() -> None:
    made = plan(facts(), gpu(10))
    assert made.fits
    assert made.devices == ()
    assert "no device has room" in " ".join(made.reasons)


def test_two_unequal_gpus_are_filled_to_the_same_share() -> None:
    made = plan(facts(24), gpu(6000, "A"), gpu(2000, "B"), n_ctx=4096)
    first, second = made.devices
    assert first.n_layers + second.n_layers == 25
    assert first.n_layers == pytest.approx(3 * second.n_layers, abs=2)
    assert made.tensor_split == (first.n_layers, second.n_layers)


def test_workers_get_what_this_machine_cannot_hold() -> None:
    made = plan(facts(8), gpu(500), gpu(20_000, "RPC0", remote=True), n_ctx=4096)
    local, remote = made.devices
    assert (local.n_layers, remote.n_layers) == (4, 5)
    alone = plan(facts(8), gpu(20_000), gpu(20_000, "RPC0", remote=True), n_ctx=4096)
    assert [share.device for share in alone.devices] == ["GPU0"]


def test_a_worker_alone_takes_the_model() -> None:
    made = plan(facts(8), gpu(20_000, "RPC0", remote=True), n_ctx=4096)
    assert made.n_gpu_layers == 9


def test_experts_stay_on_the_cpu_before_layers_do() -> None:
    model = facts(8, layer=50 * MIB, experts=400 * MIB)
    made = plan(model, gpu(1400), n_ctx=4096)
    assert made.n_gpu_layers == 9  # attention and shared parts of every layer
    assert made.cpu_experts == (0, 1, 2, 3, 4, 5, 6)
    assert made.devices[0].weights == (8 * 50 + 50 + 400) * MIB
    assert made.host.weights == (50 + 7 * 400) * MIB
    assert "the experts of 7 layers stay on the CPU" in " ".join(made.reasons)
    tiny = plan(model, gpu(300), n_ctx=4096)
    assert 0 < tiny.n_gpu_layers < 9
    assert len(tiny.cpu_experts) == tiny.n_gpu_layers - 1


def test_a_number_of_layers_is_kept_or_refused() -> None:
    assert plan(facts(), gpu(500), n_gpu_layers=2, n_ctx=4096).n_gpu_layers == 2
    assert plan(facts(), gpu(20_000), n_gpu_layers=99, n_ctx=4096).n_gpu_layers == 9
    refused = plan(facts(), gpu(500), n_gpu_layers=8, n_ctx=4096)
    assert not refused.fits
    assert "memory of GPU0" in str(refused.problem)
    assert refused.remedies[0] == "n_gpu_layers=4"


def test_shares_that_were_asked_for_are_llama_cpps() -> None:
    made = plan(facts(8), gpu(9000, "A"), gpu(9000, "B"), n_ctx=512, tensor_split=(2, 1))
    assert [share.n_layers for share in made.devices] == [6, 3]
    assert split_by((1, 1), 25, 2) == [13, 12]
    assert split_by((0, 1), 4, 2) == [0, 4]
    assert split_by((), 4, 2) == [2, 2]


def test_context_follows_the_hosts_memory_and_leaves_as_much_again() -> None:
    model = facts()
    made = plan(model, host=Budget("CPU", 2000 * MIB))
    assert made.fits
    rest = 2000 * MIB - made.host.weights - made.host.compute - made.host.other
    assert 2 * made.host.cache <= rest < 2 * made.host.cache + 80 * MIB
    assert made.n_ctx % 256 == 0


def test_a_small_trained_context_is_never_exceeded() -> None:
    for memory in (1100, 64_000):
        assert plan(facts(n_ctx_train=300), host=Budget("CPU", memory * MIB)).n_ctx == 300


def test_the_cache_type_gives_way_where_it_is_left_to_the_plan() -> None:
    tight = Budget("CPU", 1300 * MIB)
    refused = plan(facts(), host=tight, n_ctx=12288)
    assert not refused.fits
    assert 'cache_type_k = cache_type_v = "q8_0"' in refused.remedies
    made = plan(facts(), host=tight, n_ctx=12288, type_k="auto", type_v="auto")
    assert made.fits
    assert (made.type_k, made.type_v) == ("q8_0", "q8_0")
    ample = plan(facts(), n_ctx=12288, type_k="auto", type_v="auto")
    assert (ample.type_k, ample.type_v) == ("f16", "f16")


def test_a_refusal_names_numbers_and_what_would_fit() -> None:
    refused = plan(facts(), host=Budget("CPU", 700 * MIB), n_ctx=8192)
    assert refused.problem is not None
    assert "weights 900 MiB" in refused.problem
    assert "700 MiB can be taken" in refused.problem
    assert refused.remedies == ("a quantization to Q6_K",)
    context = plan(facts(), host=Budget("CPU", 1050 * MIB), n_ctx=32768)
    smaller = next(each for each in context.remedies if each.startswith("n_ctx="))
    n_ctx = int(smaller.removeprefix("n_ctx="))
    assert plan(facts(), host=Budget("CPU", 1050 * MIB), n_ctx=n_ctx).fits
    assert not plan(facts(), host=Budget("CPU", 1050 * MIB), n_ctx=n_ctx + 256).fits
    assert plan(facts(), host=Budget("CPU", 10 * MIB)).remedies == ()


def test_states_of_sequences_are_counted() -> None:
    model = facts(2)._replace(layers=(LayerFacts(MIB, n_state_bytes=3 * MIB),) * 2)
    assert plan(model, n_ctx=512, n_states=4).host.cache == 2 * 3 * 4 * MIB


def test_cells_come_in_whole_steps() -> None:
    assert plan(facts(1), n_ctx=257).host.cache == 512 * 2 * 2 * 1024


def test_a_line_between_two_points_of_the_buffers_is_never_below_them() -> None:
    curve = Compute(((256, 10), (4096, 100)))
    assert curve.at(256) == 10
    assert curve.at(2176) == 55
    assert curve.at(8192) == 196
    assert curve.at(1) == 10
    assert curve.with_point(1024, 12).at(640) == 11
    assert Compute(((512, 7),)).at(9999) == 7


sizes = st.lists(st.integers(1, 500), min_size=1, max_size=30)
rooms = st.lists(st.integers(0, 4000), min_size=1, max_size=4)


@given(sizes, rooms, st.integers(0, 100))
def test_no_device_is_given_more_than_it_has(
    layers: list[int], free: list[int], overhead: int
) -> None:
    budgets = [Budget(str(i), n, remote=i == 3) for i, n in enumerate(free)]
    for way in (assign, balanced):
        counts = way(layers, budgets, overhead)
        if counts is None:
            continue
        assert sum(counts) == len(layers)
        at = 0
        for n, budget in zip(counts, budgets, strict=True):
            assert not n or sum(layers[at : at + n]) + overhead <= budget.n_bytes
            at += n
    assert (assign(layers, budgets, overhead) is None) == (
        balanced(layers, budgets, overhead) is None
    )


models = st.builds(
    lambda n, layer, experts, kv, trained: facts(
        n, layer=layer * MIB, experts=experts * MIB, kv=kv, n_ctx_train=trained
    ),
    st.integers(1, 12),
    st.integers(1, 200),
    st.sampled_from([0, 0, 300]),
    st.sampled_from([0, 128, 1024]),
    st.sampled_from([200, 2048, 32768]),
)
machines = st.tuples(st.integers(0, 6000), st.lists(st.integers(0, 4000), max_size=3))
asked = st.fixed_dictionaries(
    {
        "n_ctx": st.sampled_from(["auto", 512, 8192]),
        "n_gpu_layers": st.sampled_from(["auto", "auto", "all", 0, 3]),
        "type_k": st.sampled_from(["f16", "auto"]),
        "type_v": st.sampled_from(["f16", "q8_0"]),
    }
)


def on(model: ModelFacts, machine: tuple[int, Sequence[int]], wishes: dict[str, object]) -> Plan:
    host, devices = machine
    budgets = [gpu(n, f"GPU{i}") for i, n in enumerate(devices)]
    return plan(model, *budgets, host=Budget("CPU", host * MIB), **wishes)


@settings(max_examples=150, deadline=None)
@given(models, machines, asked)
def test_a_plan_that_fits_exceeds_nothing_and_forgets_no_layer(
    model: ModelFacts, machine: tuple[int, list[int]], wishes: dict[str, object]
) -> None:
    made = on(model, machine, wishes)
    if not made.fits:
        return
    shares = (made.host, *made.devices)
    assert all(share.n_bytes <= share.available for share in shares)
    assert sum(share.n_layers for share in shares) == model.n_total
    assert sum(share.weights for share in shares) == model.n_weight_bytes
    cells = -(-made.n_ctx // 256) * 256
    whole = model.cache_bytes(made.type_k, made.type_v, n_ctx=cells, n_states=1)
    assert sum(share.cache for share in shares) == pytest.approx(whole, abs=len(model.layers))
    assert wishes["n_ctx"] in ("auto", made.n_ctx)
    if wishes["n_ctx"] == "auto":
        assert min(512, model.n_ctx_train) <= made.n_ctx <= model.n_ctx_train


@settings(max_examples=150, deadline=None)
@given(models, machines, asked, st.integers(0, 3), st.integers(1, 2000))
def test_more_memory_is_never_worse(
    model: ModelFacts,
    machine: tuple[int, list[int]],
    wishes: dict[str, object],
    where: int,
    more: int,
) -> None:
    host, devices = machine
    larger = list(devices)
    if where < len(devices):
        larger[where] += more
    else:
        host += more
    before, after = on(model, machine, wishes), on(model, (host, larger), wishes)
    if not before.fits:
        return
    assert after.fits
    assert _worth(model, after, wishes) >= _worth(model, before, wishes)


def _worth(model: ModelFacts, made: Plan, wishes: dict[str, object]) -> tuple[int, int, int]:
    """A usable context first, then layers, then their experts."""
    context = min(made.n_ctx, GOOD_CTX) if wishes["n_ctx"] == "auto" else 0
    return context, made.n_gpu_layers, -len(made.cpu_experts)


@settings(max_examples=60, deadline=None)
@given(models, st.integers(0, 800), st.sampled_from([512, 8192, 32768]))
def test_what_is_said_to_fit_fits(model: ModelFacts, host: int, n_ctx: int) -> None:
    budget = Budget("CPU", host * MIB)
    refused = plan(model, host=budget, n_ctx=n_ctx)
    for remedy in refused.remedies:
        if remedy.startswith("n_ctx="):
            smaller = int(remedy.removeprefix("n_ctx="))
            assert plan(model, host=budget, n_ctx=smaller).fits
        elif remedy.startswith("cache_type"):
            name = remedy.split('"')[1]
            assert plan(model, host=budget, n_ctx=n_ctx, type_k=name, type_v=name).fits

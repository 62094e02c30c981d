"""Facts, dry loads and limits of real files, put together into plans."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest

from mofa_gguf.engine.engine import Engine
from mofa_gguf.engine.errors import DeviceUnavailable, InvalidOption, OutOfMemory
from mofa_gguf.engine.files.header import GGUFHeader, TensorInfo, read_header
from mofa_gguf.engine.files.tensor_types import TYPES_BY_NAME
from mofa_gguf.engine.machine.devices import Device
from mofa_gguf.engine.machine.memory import HostMemory, Room
from mofa_gguf.engine.options import EngineOptions
from mofa_gguf.engine.planning import dry_load, fit, planner
from mofa_gguf.engine.planning.dry_load import read_log
from mofa_gguf.engine.planning.facts import facts_of, model_facts
from mofa_gguf.engine.planning.fit import plan_load, usable_devices
from mofa_gguf.engine.planning.ledger import Reservation, reserved
from mofa_gguf.engine.planning.repack import repacked, repacked_bytes
from tests.support.tiny_gguf import TinyLlama, write_tiny_llama
from tests.support.tiny_memories import MEMORIES

pytestmark = pytest.mark.usefixtures("nothing_promised")

MIB = 2**20


def memory(n_mib: float, *, address_space: float | None = None) -> HostMemory:
    space = None if address_space is None else Room(int(address_space * MIB), "ulimit -v")
    return HostMemory(Room(int(n_mib * MIB), "a pretended limit"), space)


def device(name: str = "GPU0", kind: str = "gpu", free: int = 1000) -> Device:
    return Device(name, "pretended", kind, free * MIB, free * MIB)  # type: ignore[arg-type]


@pytest.fixture
def wide_model(tmp_path: Path) -> Path:
    """A model whose cache is large enough for the log's two decimals to tell."""
    return write_tiny_llama(tmp_path / "wide.gguf", TinyLlama(n_layers=3, n_embd=256, n_ctx=8192))


def test_facts_come_from_the_files_own_tensors(tiny_model: Path) -> None:
    facts, header = facts_of(tiny_model), read_header(tiny_model)
    assert len(facts.layers) == 2
    assert facts.n_weight_bytes == header.n_tensor_bytes == facts.n_file_bytes
    assert facts.n_vocab == 259
    assert facts.n_ctx_train == 256
    # Two heads of 16 values.
    assert (facts.layers[0].kv_k, facts.layers[0].kv_v) == (32, 32)
    assert not facts.has_experts


def test_a_models_own_plan_measures_the_cache_it_computes(wide_model: Path) -> None:
    header = read_header(wide_model)
    for kind in ("f16", "q8_0", "f32"):
        options = EngineOptions(n_ctx=2048, cache_type_k=kind, cache_type_v=kind, n_threads=1)  # type: ignore[arg-type]
        load = plan_load(header, options)
        assert load.measured
        expected = model_facts(header).cache_bytes(kind, kind, n_ctx=2048, n_states=1)
        assert load.plan.host.cache == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("kind", MEMORIES)
def test_computed_caches_and_states_are_what_llama_cpp_says(kind: str, tmp_path: Path) -> None:
    path = MEMORIES[kind](tmp_path / "model.gguf")
    header = read_header(path)
    load = plan_load(header, EngineOptions(n_ctx=8192, n_threads=1, max_parallel=64))
    computed = model_facts(header).cache_bytes("f16", "f16", n_ctx=8192, n_states=64)
    assert computed > 0
    assert load.plan.host.cache == pytest.approx(computed, abs=0.02 * MIB)


# Hyperparameters of well-known shapes: values of K and V in each layer.
SHAPES: dict[str, tuple[dict[str, object], list[tuple[int, int]], list[int]]] = {
    "grouped heads": (
        {"embedding_length": 64, "attention.head_count": 8, "attention.head_count_kv": 2},
        [(16, 16)] * 2,
        [0, 0],
    ),
    "every head its own": (
        {"embedding_length": 64, "attention.head_count": 8},
        [(64, 64)] * 2,
        [0, 0],
    ),
    "latent attention": (
        {
            "attention.head_count": 16,
            "attention.head_count_kv": 1,
            "attention.key_length": 576,
            "attention.value_length": 512,
            "attention.key_length_mla": 192,
        },
        [(576, 0)] * 2,
        [0, 0],
    ),
    "a state in every other layer": (
        {
            "embedding_length": 64,
            "attention.head_count": 4,
            "attention.head_count_kv": [0, 4],
            "shortconv.l_cache": 3,
        },
        [(0, 0), (64, 64)],
        [64 * 2 * 4, 0],
    ),
    "full attention at intervals": (
        {
            "embedding_length": 64,
            "attention.head_count": 4,
            "full_attention_interval": 2,
            "ssm.inner_size": 128,
            "ssm.state_size": 16,
            "ssm.conv_kernel": 4,
            "ssm.group_count": 2,
        },
        [(0, 0), (64, 64)],
        [4 * (3 * (128 + 2 * 2 * 16) + 16 * 128), 0],
    ),
    "the last layer reuses the first one's": (
        {
            "embedding_length": 64,
            "attention.head_count": 4,
            "attention.shared_kv_layers": 1,
        },
        [(64, 64), (0, 0)],
        [0, 0],
    ),
    "an encoder": (
        {"embedding_length": 64, "attention.head_count": 4, "attention.causal": False},
        [(0, 0)] * 2,
        [0, 0],
    ),
}


@pytest.mark.parametrize("name", SHAPES)
def test_each_kind_of_attention_keeps_what_it_keeps(name: str) -> None:
    values, kv, states = SHAPES[name]
    metadata = {f"x.{key}": value for key, value in {"block_count": 2, **values}.items()}
    metadata["general.architecture"] = "x"
    header = GGUFHeader(Path("m.gguf"), 3, metadata, (), 0, 0)
    layers = model_facts(header, ()).layers
    assert [(layer.kv_k, layer.kv_v) for layer in layers] == kv
    assert [layer.n_state_bytes for layer in layers] == states


def test_experts_and_tied_embeddings_are_seen() -> None:
    f32 = TYPES_BY_NAME["F32"]
    shapes = {
        "token_embd.weight": (10, 20),
        "output_norm.weight": (10,),
        "blk.0.attn_q.weight": (10, 10),
        "blk.0.ffn_gate_exps.weight": (10, 10, 4),
        "blk.0.ffn_gate_inp.weight": (10, 4),
        "blk.1.ffn_up_shexp.weight": (10, 10),
    }
    tensors = [TensorInfo(name, shape, f32, 0) for name, shape in shapes.items()]
    metadata = {"general.architecture": "x", "x.block_count": 2}
    facts = model_facts(GGUFHeader(Path("m.gguf"), 3, metadata, (), 0, 0), tensors)
    assert facts.has_experts
    assert [layer.n_expert_bytes for layer in facts.layers] == [1600, 0]
    assert facts.n_tied_bytes == 800
    assert facts.n_output_bytes == 840
    assert facts.n_weight_bytes == sum(tensor.n_bytes for tensor in tensors)


def test_the_parts_of_a_split_model_count_together(tmp_path: Path) -> None:
    for number in (1, 2):
        writer = gguf.GGUFWriter(tmp_path / f"m-0000{number}-of-00002.gguf", "llama")
        writer.add_uint16("split.count", 2)
        writer.add_block_count(1)
        writer.add_tensor(f"blk.0.part_{number}.weight", np.zeros((4, 32), np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    assert facts_of(tmp_path / "m-00001-of-00002.gguf").layers[0].n_bytes == 2 * 512


def test_what_the_cpu_lays_out_anew_is_what_llama_cpp_does(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The size of its own buffers for that, as llama.cpp logs it when it really loads."""
    from tools.bench.model import Shape, write_model

    path = write_model(tmp_path / "m.gguf", Shape(2, 256, 4, 2, 512, 1024, 256))
    with caplog.at_level(logging.DEBUG, logger="mofa_gguf.llama_cpp"):
        Engine.load(path, EngineOptions(n_threads=1)).close()
    lines = [record.getMessage() for record in caplog.records]
    own = ("REPACK model buffer", "AMX model buffer")
    sizes = [line.split("=")[1].split()[0] for line in lines if any(name in line for name in own)]
    tensors = read_header(path).tensors
    expected = sum(map(repacked_bytes, repacked(tensors)))
    expected += sum(repacked_bytes(t) for t in tensors if t.name == "token_embd.weight")
    assert sum(map(float, sizes)) * MIB == pytest.approx(expected, abs=0.02 * MIB)


def test_sizes_are_read_from_llama_cpps_log() -> None:
    buffers = read_log(
        [
            "llama_context:        CPU  output buffer size =     1.95 MiB",
            "llama_kv_cache:        CPU KV buffer size =     0.00 MiB",
            "llama_kv_cache: size =   12.00 MiB (   256 cells,  24 layers, 16/1 seqs), K: ...",
            "llama_kv_cache: size =    3.00 MiB (   256 cells,   4 layers, 16/1 seqs), K: ...",
            "llama_memory_recurrent: size =    0.50 MiB (    16 cells,   2 layers, 16 seqs",
            "sched_reserve:      CUDA0 compute buffer size =   100.50 MiB",
            "sched_reserve:  CUDA_Host compute buffer size =     9.00 MiB",
            "sched_reserve:        CPU compute buffer size =    33.25 MiB",
            "~llama_context:       CPU compute buffer size is  33.2510 MiB, matches expectation",
        ]
    )
    assert buffers is not None
    assert buffers.cache == 15 * MIB
    assert buffers.states == MIB // 2
    assert buffers.output == round(1.95 * MIB)
    assert buffers.host_compute == int(42.25 * MIB)
    assert buffers.largest_compute == int(100.5 * MIB)
    assert read_log(["nothing of the kind"]) is None


def test_a_model_that_llama_cpp_cannot_try_is_planned_from_its_header(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Unreadable(dry_load.DryModel):
        loaded = False  # type: ignore[assignment]

    monkeypatch.setattr(dry_load, "DryModel", Unreadable)
    load = plan_load(read_header(tiny_model), EngineOptions(n_threads=1))
    assert load.plan.fits
    assert not load.measured
    assert load.plan.host.compute > 0


def test_estimated_buffers_are_not_below_the_measured_ones(wide_model: Path) -> None:
    header = read_header(wide_model)
    for n_ctx in (512, 4096):
        options = EngineOptions(n_ctx=n_ctx, n_threads=1)
        facts = model_facts(header)
        made = planner.Planner(
            wide_model, facts, header.tensors, options, (), memory(4000), 1.0, None
        )
        estimated = made._first_costs().compute.at(n_ctx)
        assert estimated >= plan_load(header, options).plan.host.compute


def test_a_load_that_cannot_fit_is_refused_with_numbers(wide_model: Path) -> None:
    load = plan_load(
        read_header(wide_model), EngineOptions(n_ctx=8192, n_threads=1), memory=memory(12)
    )
    with pytest.raises(OutOfMemory, match=r"wide.gguf cannot be loaded.*a pretended limit") as told:
        load.check()
    assert told.value.n_bytes is not None
    assert told.value.available_bytes is not None
    assert told.value.n_bytes > told.value.available_bytes


def test_a_context_beyond_all_memory_is_refused_without_being_tried(
    wide_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tried(*_: object) -> None:
        pytest.fail("llama.cpp makes a table of all cells, gigabytes of it")

    monkeypatch.setattr(dry_load.DryModel, "measure", tried)
    options = EngineOptions(n_ctx=10**8, n_threads=1)
    load = plan_load(read_header(wide_model), options, memory=memory(8000))
    with pytest.raises(OutOfMemory, match="what would fit: n_ctx="):
        load.check()


def test_a_context_of_auto_is_fitted(wide_model: Path) -> None:
    header = read_header(wide_model)
    options = EngineOptions(n_threads=1)
    ample = plan_load(header, options, memory=memory(4000)).plan
    tight = plan_load(header, options, memory=memory(38)).plan
    assert ample.n_ctx == 8192
    assert tight.fits
    assert 512 <= tight.n_ctx < 8192
    assert tight.n_bytes <= 38 * MIB


def test_where_address_space_is_short_the_file_is_read_not_mapped(tmp_path: Path) -> None:
    from tools.bench.model import Shape, write_model

    path = write_model(tmp_path / "m.gguf", Shape(4, 512, 4, 2, 2048, 2048, 512))
    header = read_header(path)
    if not repacked(header.tensors):
        pytest.skip("this CPU uses the file's own layout: a mapping takes no more")
    options = EngineOptions(n_ctx=512, n_threads=1)
    needed = plan_load(header, options).plan.n_bytes / MIB
    slack = planner.ADDRESS_SPACE_SLACK / MIB + 8
    both = plan_load(header, options, memory=memory(4000, address_space=2 * needed + slack + 20))
    assert both.options.use_mmap
    one = plan_load(header, options, memory=memory(4000, address_space=needed + slack + 2))
    assert one.plan.fits
    assert not one.options.use_mmap
    none = plan_load(header, options, memory=memory(4000, address_space=slack + 2))
    assert not none.plan.fits
    assert none.limit == "ulimit -v"
    # What is told then is how much is missing at least.
    half = plan_load(header, options, memory=memory(4000, address_space=needed / 2 + slack))
    assert not half.plan.fits
    assert not half.options.use_mmap
    assert half.plan.host.available > 0.4 * needed * MIB


def test_memory_that_another_model_was_promised_is_not_given_twice(tiny_model: Path) -> None:
    header, options = read_header(tiny_model), EngineOptions(n_threads=1)
    assert plan_load(header, options, memory=memory(60)).plan.fits
    first = Reservation({"CPU": 55 * MIB, "GPU0": 7})
    try:
        assert reserved("GPU0") == 7
        assert not plan_load(header, options, memory=memory(60)).plan.fits
        first.settle({"CPU": MIB})
        assert plan_load(header, options, memory=memory(60)).plan.fits
    finally:
        first.release()
    first.release()
    assert reserved() == reserved("GPU0") == 0


OPTIONS = EngineOptions()
CHOICES: list[tuple[str, EngineOptions, list[Device], list[str]]] = [
    ("GPUs before workers", OPTIONS, [device("R", "rpc"), device("G")], ["G", "R"]),
    ("no integrated graphics beside a GPU", OPTIONS, [device("I", "igpu"), device("G")], ["G"]),
    ("integrated graphics alone", OPTIONS, [device("I", "igpu")], ["I"]),
    (
        "the main GPU alone",
        replace(OPTIONS, split_mode="none", main_gpu=1),
        [device("A"), device("B")],
        ["B"],
    ),
    ("nothing that is no device for layers", OPTIONS, [device("C", "cpu")], []),
]


@pytest.mark.parametrize(
    ("options", "found", "used"), [case[1:] for case in CHOICES], ids=[c[0] for c in CHOICES]
)
def test_devices_are_chosen_as_llama_cpp_does(
    options: EngineOptions, found: list[Device], used: list[str]
) -> None:
    assert [each.name for each in usable_devices(options, found)] == used


REFUSALS: list[tuple[EngineOptions, type[Exception], str]] = [
    (replace(OPTIONS, require_gpu=True), DeviceUnavailable, "require_gpu"),
    (replace(OPTIONS, tensor_split=(1, 1, 1)), InvalidOption, "names 3 devices of 1"),
    (replace(OPTIONS, split_mode="none", main_gpu=3), InvalidOption, "main_gpu is 3"),
]


@pytest.mark.parametrize(("options", "error", "says"), REFUSALS)
def test_devices_that_are_not_there_cannot_be_chosen(
    options: EngineOptions, error: type[Exception], says: str
) -> None:
    found = [] if options.require_gpu else [device()]
    with pytest.raises(error, match=says):
        usable_devices(options, found)


def test_options_for_a_gpu_that_is_not_there_are_mentioned_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit, "_said", set())
    options = replace(OPTIONS, n_gpu_layers=12, tensor_split=(1, 2), main_gpu=1, split_mode="none")
    with caplog.at_level(logging.WARNING, logger="mofa_gguf"):
        for _ in range(3):
            assert usable_devices(options, []) == ()
        assert usable_devices(OPTIONS, []) == ()
    assert [record.getMessage().split(" has")[0] for record in caplog.records] == [
        "n_gpu_layers=12",
        "tensor_split",
        "main_gpu=1",
        "split_mode=none",
    ]

"""What comes beside a model counts, too: adapters, a draft model, embedding, parked prefixes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mofa_gguf.engine.engine import Engine
from mofa_gguf.engine.errors import ModelFileError, OutOfMemory
from mofa_gguf.engine.files.header import read_header
from mofa_gguf.engine.machine.devices import Device
from mofa_gguf.engine.machine.memory import HostMemory, Room
from mofa_gguf.engine.options import EngineOptions, LoraAdapter
from mofa_gguf.engine.planning.fit import plan_load
from mofa_gguf.engine.planning.ledger import reserved
from mofa_gguf.engine.planning.plan import Share
from mofa_gguf.engine.planning.whole import WholePlan, plan_whole
from mofa_gguf.engine.running import embedders
from tests.engine.models.test_lora import write_adapter
from tests.support.tiny_gguf import TinyLlama, write_tiny_llama
from tests.support.tiny_memories import MEMORIES

pytestmark = pytest.mark.usefixtures("nothing_promised")

MIB = 2**20
OPTIONS = EngineOptions(n_threads=1)
# Of the model below: its first layer, and the second one's.
TARGETS = {"blk.0.attn_q.weight": (256, 256), "blk.1.ffn_up.weight": (256, 128)}
RANK = 64


def memory(n_mib: float) -> HostMemory:
    return HostMemory(Room(int(n_mib * MIB), "a pretended limit"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose trained context takes 16 MiB of cache."""
    shape = TinyLlama(n_embd=256, n_ctx=16384)
    return write_tiny_llama(tmp_path_factory.mktemp("whole") / "model.gguf", shape)


@pytest.fixture(scope="module")
def draft(tmp_path_factory: pytest.TempPathFactory) -> Path:
    shape = TinyLlama(n_layers=1, n_embd=128, n_ctx=16384)
    return write_tiny_llama(tmp_path_factory.mktemp("whole") / "draft.gguf", shape)


@pytest.fixture
def adapter(tmp_path: Path) -> LoraAdapter:
    return LoraAdapter(str(write_adapter(tmp_path / "adapter.gguf", TARGETS, rank=RANK)))


def test_adapters_count_where_their_layers_lie(model: Path, adapter: LoraAdapter) -> None:
    header = read_header(model)
    sizes = [4 * RANK * (n_in + n_out) for n_in, n_out in TARGETS.values()]
    options = replace(OPTIONS, n_ctx=512, lora=(adapter,))
    host = plan_load(header, options).plan.host
    assert host.adapters == sum(sizes)
    assert host.n_bytes == host.weights + host.cache + host.compute + host.other + host.adapters
    # Of three layers the last two go to the device: the second one and the output.
    device = Device("GPU0", "pretended", "gpu", 900 * MIB, 900 * MIB)
    some = plan_load(
        header, replace(options, n_gpu_layers=2, dry_load=False), devices=[device]
    ).plan
    assert [some.host.adapters, some.devices[0].adapters] == sizes


def test_graphs_grow_with_adapters(model: Path, adapter: LoraAdapter) -> None:
    header = read_header(model)
    options = replace(OPTIONS, n_ctx=512)
    without = plan_load(header, options).plan.host.compute
    assert plan_load(header, replace(options, lora=(adapter,))).plan.host.compute > without


def test_an_adapter_of_another_model_has_no_plan(model: Path, tmp_path: Path) -> None:
    stranger = write_adapter(tmp_path / "other.gguf", {"blk.7.attn_q.weight": (64, 64)})
    options = replace(OPTIONS, lora=(LoraAdapter(str(stranger)),))
    with pytest.raises(ModelFileError, match="is this the right base model"):
        plan_load(read_header(model), options)
    with pytest.raises(ModelFileError, match="there is no such file"):
        plan_load(read_header(model), replace(OPTIONS, lora=(LoraAdapter("absent.gguf"),)))


def test_a_model_without_a_draft_model_is_planned_as_ever(model: Path) -> None:
    whole = plan_whole(read_header(model), OPTIONS, memory=memory(4000))
    assert whole.draft is None
    assert whole.target.plan == plan_load(read_header(model), OPTIONS, memory=memory(4000)).plan
    assert whole.n_bytes == whole.target.plan.n_bytes


def pair(model: Path, draft: Path, n_mib: float, **options: object) -> WholePlan:
    asked = replace(OPTIONS, draft_model=str(draft), **options)  # type: ignore[arg-type]
    return plan_whole(read_header(model), asked, memory=memory(n_mib))


def test_a_draft_model_has_a_plan_of_its_own(model: Path, draft: Path) -> None:
    whole = pair(model, draft, 4000)
    assert whole.draft is not None
    assert whole.draft.plan.model == "draft.gguf"
    assert whole.draft.plan.n_ctx == whole.target.plan.n_ctx == 16384
    assert whole.n_bytes == whole.target.plan.n_bytes + whole.draft.plan.n_bytes
    assert whole.all_bytes == {"CPU": whole.n_bytes}
    assert reserved() == 0


def test_an_open_context_leaves_room_for_the_draft_model(model: Path, draft: Path) -> None:
    header = read_header(model)
    least = pair(model, draft, 4000, n_ctx=512).n_bytes / MIB
    for n_mib in (least * 1.2, least * 1.5, least * 2):
        alone = plan_load(header, OPTIONS, memory=memory(n_mib)).plan
        whole = pair(model, draft, n_mib)
        assert whole.fits
        assert 512 <= whole.target.plan.n_ctx <= alone.n_ctx
        assert whole.n_bytes <= n_mib * MIB


def test_what_does_not_fit_beside_its_draft_model_is_refused_by_its_name(
    model: Path, draft: Path
) -> None:
    needed = plan_load(read_header(model), replace(OPTIONS, n_ctx=8192)).plan.n_bytes / MIB
    whole = pair(model, draft, needed * 1.1 + 1, n_ctx=8192)
    assert whole.target.plan.fits
    assert not whole.fits
    with pytest.raises(OutOfMemory, match=r"draft\.gguf cannot be loaded"):
        whole.check()
    assert reserved() == 0


def test_a_pair_that_does_not_fit_loads_nothing(
    model: Path, draft: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = plan_load(read_header(model), replace(OPTIONS, n_ctx=8192)).plan.n_bytes / MIB
    small = memory(needed * 1.1 + 1)
    monkeypatch.setattr("mofa_gguf.engine.planning.fit.host_memory", lambda: small)
    loaded: list[object] = []
    monkeypatch.setattr("mofa_gguf.engine.engine.load_model", loaded.append)
    with pytest.raises(OutOfMemory, match=r"draft\.gguf"):
        Engine.load(model, replace(OPTIONS, n_ctx=8192, draft_model=str(draft)))
    assert loaded == []


def test_embedding_has_a_context_of_its_own(model: Path) -> None:
    embedding = plan_load(read_header(model), replace(OPTIONS, n_embedding_batch=1024)).embedding
    assert embedding is not None
    (share,) = embedding.shares
    assert embedding.n_tokens == 1024
    assert share.weights == 0
    # Two layers of K and V: 2 heads of 64 values of 2 bytes each.
    assert share.cache == 1024 * 2 * 2 * (2 * 64) * 2
    # The logits of every token, and its vector.
    assert share.other >= 1024 * (259 + 256) * 4
    assert embedding.problem is None


def test_embedding_costs_with_what_is_embedded_at_once(model: Path) -> None:
    costs = []
    for n_tokens in (256, 512, 2048):
        load = plan_load(read_header(model), replace(OPTIONS, n_embedding_batch=n_tokens))
        assert load.embedding is not None
        costs.append(load.embedding.n_bytes)
    assert costs == sorted(costs)
    assert costs[2] > 4 * costs[0]


def test_embedding_is_estimated_where_llama_cpp_cannot_be_asked(model: Path) -> None:
    header = read_header(model)
    told = plan_load(header, OPTIONS).embedding
    estimated = plan_load(header, replace(OPTIONS, dry_load=False)).embedding
    assert told is not None
    assert estimated is not None
    assert estimated.n_bytes >= told.n_bytes


def test_embedding_that_does_not_fit_beside_the_model_is_told_by_the_plan(model: Path) -> None:
    header, options = read_header(model), replace(OPTIONS, n_ctx=512)
    needed = plan_load(header, options).plan.n_bytes / MIB
    load = plan_load(header, options, memory=memory(needed * 1.2))
    assert load.plan.fits
    assert load.embedding is not None
    assert "embedding 2048 tokens at once needs" in (load.embedding.problem or "")


def test_embedding_without_room_is_refused_and_the_next_one_tries_again(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine.load(model, replace(OPTIONS, n_ctx=512, n_embedding_batch=256))
    kept = reserved()
    with monkeypatch.context() as patched:
        patched.setattr(embedders, "host_memory", lambda: memory(1))
        with pytest.raises(OutOfMemory, match=r"cannot embed now: .*smaller n_embedding_batch"):
            engine.embed([[1, 2, 3]]).result()
    assert reserved() == kept
    (vector,) = engine.embed([[1, 2, 3]]).result()
    assert len(vector) == 256
    assert reserved() > kept
    engine.close()
    assert reserved() == 0


def test_a_model_made_for_embedding_is_planned_and_loaded_for_that_alone(tmp_path: Path) -> None:
    shape = TinyLlama(n_embd=256, n_ctx=16384, metadata={"llama.pooling_type": 3})
    path = write_tiny_llama(tmp_path / "embedder.gguf", shape)
    load = plan_load(read_header(path), OPTIONS)
    assert load.plan.n_ctx == OPTIONS.n_embedding_batch
    assert load.embedding is None
    assert load.prefix_bytes == 0
    engine = Engine.load(path, OPTIONS)
    assert not engine.can_generate
    (vector,) = engine.embed([[1, 2, 3]]).result()
    assert len(vector) == 256
    engine.close()


def test_prefixes_may_take_what_was_asked_for_or_a_part_of_what_is_left(model: Path) -> None:
    header = read_header(model)
    assert plan_load(header, replace(OPTIONS, prefix_memory=7)).prefix_bytes == 7
    load = plan_load(header, replace(OPTIONS, n_ctx=512), memory=memory(500))
    left = load.plan.host.available - load.plan.host.n_bytes
    assert load.prefix_bytes == pytest.approx(left / 10, abs=1)


def test_memories_without_cells_park_no_prefixes(tmp_path: Path) -> None:
    path = MEMORIES["recurrent"](tmp_path / "model.gguf")
    assert plan_load(read_header(path), OPTIONS).prefix_bytes == 0


def test_a_share_is_the_sum_of_its_parts() -> None:
    assert Share("CPU", 1, 1, 2, 4, 8, 99, 16).n_bytes == 31

"""``plan`` and ``worker``: what a model would take, and devices lent to others."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mofa_gguf.engine.engine import Engine
from mofa_gguf.engine.files.header import read_header
from mofa_gguf.engine.machine import rpc
from mofa_gguf.engine.machine.memory import HostMemory, Room
from mofa_gguf.engine.options import EngineOptions
from mofa_gguf.engine.planning.fit import plan_load
from tests.cli.conftest import Run
from tests.engine.models.test_lora import write_adapter
from tests.support.tiny_gguf import TinyLlama, write_tiny_llama

pytestmark = pytest.mark.usefixtures("nothing_promised")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_tiny_llama(tmp_path / "m.gguf", TinyLlama(n_embd=256, n_ctx=8192))


@pytest.fixture
def small_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    room = Room(20 * 2**20, "a pretended limit")
    monkeypatch.setattr("mofa_gguf.engine.planning.fit.host_memory", lambda: HostMemory(room))


def test_a_plan_says_what_goes_where_and_why(run: Run, model: Path) -> None:
    result = run("plan", model)
    assert result.code == 0, result.err
    header, row, *rest = result.out.splitlines()
    assert header.split()[:3] == ["device", "layers", "weights"]
    assert row.startswith("CPU")
    assert "context: the 8192 tokens the model was trained for" in "\n".join(rest)
    assert rest[-1] == "It fits."


def test_a_plan_leaves_address_space_for_the_threads_of_a_provider(
    run: Run, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A limit on it (ulimit -v) counts what they reserve, which this command does not need."""
    memory = HostMemory(Room(2**34, "plenty"), Room(2**29, "ulimit -v"))
    monkeypatch.setattr("mofa_gguf.engine.planning.fit.host_memory", lambda: memory)
    load = plan_load(read_header(model), EngineOptions(n_ctx=512, n_threads=1))
    monkeypatch.setattr("mofa_gguf.engine.planning.whole.host_memory", lambda: memory)
    monkeypatch.setenv("MOFA_GGUF_N_THREADS", "1")
    told = json.loads(run("plan", model, "--n-ctx", "512", "--json").out)
    left = load.plan.host.available - told["host"]["available"]
    assert 100 * 2**20 < left < 300 * 2**20


def test_a_plan_is_told_as_json(run: Run, model: Path) -> None:
    told = json.loads(run("plan", model, "--n-ctx", "1024", "--parallel", "2", "--json").out)
    assert told["fits"] is True
    assert told["n_ctx"] == 1024
    assert told["measured"] is True
    host = told["host"]
    parts = ("weights", "cache", "compute", "other")
    assert host["n_bytes"] == sum(host[part] for part in parts) == told["n_bytes"]
    more = json.loads(run("plan", model, "--n-ctx", "1024", "--parallel", "200", "--json").out)
    assert more["n_bytes"] > told["n_bytes"]


def test_a_plan_is_made_without_what_runs_models(model: Path) -> None:
    program = (
        "import sys; from mofa_gguf.cli.main import main; assert main(sys.argv[1:]) == 0;"
        "rooms = ('mofa_gguf.engine.engine', 'mofa_gguf.chat', 'mofa_gguf.provider.gguf');"
        "loaded = [room for room in rooms if room in sys.modules]; assert not loaded, loaded"
    )
    subprocess.run([sys.executable, "-c", program, "plan", model], check=True)


def test_a_plan_shows_what_comes_beside_the_model(run: Run, model: Path, tmp_path: Path) -> None:
    draft = write_tiny_llama(tmp_path / "draft.gguf", TinyLlama(n_layers=1, n_ctx=8192))
    adapter = write_adapter(tmp_path / "a.gguf", {"blk.0.attn_q.weight": (256, 256)})
    extras = ("--draft", draft, "--lora", adapter, "--n-ctx", "1024")
    lines = run("plan", model, *extras).out.splitlines()
    assert "adapters" in lines[0]
    rows = [line for line in lines if line.startswith("CPU")]
    assert [row.split("  ")[-1].strip() for row in rows] == [
        "model",
        "draft model",
        "embedding, once asked for",
    ]
    assert any("prefix_memory" in line for line in lines)
    told = json.loads(run("plan", model, *extras, "--json").out)
    assert told["host"]["adapters"] == 4 * 2 * (256 + 256)
    assert told["draft"]["model"] == "draft.gguf"
    assert told["draft"]["n_ctx"] == told["n_ctx"] == 1024
    assert told["embedding"]["n_tokens"] == 2048
    assert told["embedding"]["problem"] is None
    assert told["prefix_bytes"] > 0


def test_a_draft_model_that_does_not_fit_beside_it_is_told(
    run: Run, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = json.loads(run("plan", model, "--n-ctx", "4096", "--json").out)["n_bytes"]
    room = Room(int(needed * 1.2), "a pretended limit")
    monkeypatch.setattr("mofa_gguf.engine.planning.fit.host_memory", lambda: HostMemory(room))
    result = run("plan", model, "--n-ctx", "4096", "--draft", model)
    assert result.code == 1
    assert "The draft model does not fit: it needs" in result.out
    assert "It fits" not in result.out
    assert "embedding would be refused" in result.out


def test_a_file_that_reads_images_is_said_to_be_unused(run: Run, model: Path) -> None:
    other = model.with_name("model-mmproj-f16.gguf")
    other.write_bytes(b"GGUF")
    assert f"{other.name} is not used: images and sound" in run("plan", model).out
    assert json.loads(run("plan", model, "--json").out)["unused"] == [str(other)]


def test_options_of_the_environment_count(
    run: Run, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOFA_GGUF_N_CTX", "768")
    assert json.loads(run("plan", model, "--json").out)["n_ctx"] == 768


def test_what_does_not_fit_says_what_would(run: Run, model: Path, small_machine: None) -> None:
    result = run("plan", model, "--n-ctx", "8192")
    assert result.code == 1
    assert "It does not fit: it needs" in result.out
    assert "a pretended limit" in result.out
    assert "What would fit: " in result.out
    told = json.loads(run("plan", model, "--n-ctx", "8192", "--json").out)
    assert told["fits"] is False
    assert told["remedies"]


def test_the_doctor_gives_each_model_a_verdict(run: Run, model: Path, small_machine: None) -> None:
    Path("mofa.toml").write_text(
        f'[providers.fits]\nprovider = "gguf"\nmodel = "{model}"\nn_ctx = 512\n'
        f'[providers.large]\nprovider = "gguf"\nmodel = "{model}"\nn_ctx = 8192\n'
    )
    result = run("doctor", "--json")
    found = {each["what"]: each for each in json.loads(result.out)["findings"]}
    assert result.code == 1
    assert found["plan for 'fits'"]["verdict"] == "ok"
    assert "512 tokens of context" in found["plan for 'fits'"]["detail"]
    assert found["provider 'fits'"]["verdict"] == "ok"
    assert found["plan for 'large'"]["verdict"] == "broken"
    assert "it needs" in found["plan for 'large'"]["detail"]
    assert "n_ctx=" in found["plan for 'large'"]["advice"]
    assert "provider 'large'" not in found


def test_the_doctor_counts_the_draft_model(run: Run, model: Path) -> None:
    Path("mofa.toml").write_text(
        f'[providers.pair]\nprovider = "gguf"\nmodel = "{model}"\nn_ctx = 512\n'
        f'draft_model = "{model}"\n'
    )
    found = {each["what"]: each for each in json.loads(run("doctor", "--json").out)["findings"]}
    assert found["plan for 'pair'"]["verdict"] == "ok"
    assert "with its draft model" in found["plan for 'pair'"]["detail"]


def test_a_model_that_is_not_there_has_no_plan(run: Run) -> None:
    result = run("plan", "no.gguf")
    assert result.code == 1
    assert "no.gguf" in result.err


def test_a_worker_stays_on_this_machine_unless_told(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = run("worker", "--host", "0.0.0.0")
    assert result.code == 1
    assert "--allow-public" in result.err
    monkeypatch.setattr(rpc, "has_rpc", lambda: False)
    refused = run("worker", "--host", "0.0.0.0", "--allow-public")
    assert refused.code == 1
    assert "GGML_RPC=on" in refused.err


def test_a_worker_is_started_as_asked(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[object] = []
    monkeypatch.setattr(rpc, "serve", lambda *place, **how: started.append((place, how)))
    before = signal.getsignal(signal.SIGINT)
    assert run("worker", "--port", "6000", "--threads", "3").code == 0
    assert signal.getsignal(signal.SIGINT) is before
    assert started == [(("127.0.0.1", 6000), {"n_threads": 3, "allow_public": False})]


@pytest.mark.parametrize(("stated", "n_longest"), [(None, 512), (256, 256)])
def test_every_command_says_the_same_of_the_texts_that_a_model_embeds(
    run: Run, tmp_path: Path, stated: int | None, n_longest: int
) -> None:
    """Its positions, and what it was trained on; the batch only says how many at a time."""
    metadata: dict[str, object] = {"llama.attention.causal": False, "llama.pooling_type": 1}
    if stated is not None:
        metadata["mofa_gguf.max_sequence_length"] = stated
    path = write_tiny_llama(tmp_path / "e.gguf", TinyLlama(n_ctx=512, metadata=metadata))
    words = f"texts of up to {n_longest} tokens"
    planned = run("plan", str(path))
    assert f"{words} to embed, 2048 tokens at a time, 0 of" in planned.out
    assert "KV cache f16" not in planned.out
    assert words in run("inspect", str(path)).out
    Path("mofa.toml").write_text(f'[providers.e]\nprovider = "gguf"\nmodel = "{path}"\n')
    told = json.loads(run("doctor", "--json").out)["findings"]
    found = {each["what"]: each["detail"] for each in told}
    assert f"{words} to embed, 2048 tokens at a time" in found["plan for 'e'"]
    assert f", {words} to embed, ready in" in found["provider 'e'"]
    engine = Engine.load(path, EngineOptions(n_threads=1))
    try:
        assert engine.n_ctx == n_longest
    finally:
        engine.close()

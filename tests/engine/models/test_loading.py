"""Loading under limits and with devices that fail: refused, fitted or tried again, never ended."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mofa_gguf.engine.engine import Engine
from mofa_gguf.engine.errors import (
    DeviceLost,
    DeviceUnavailable,
    EngineError,
    ModelFileError,
    OutOfMemory,
    UnsupportedModel,
)
from mofa_gguf.engine.files.header import GGUFHeader
from mofa_gguf.engine.machine.memory import HostMemory, Room
from mofa_gguf.engine.models import loading
from mofa_gguf.engine.models.model import Model
from mofa_gguf.engine.options import EngineOptions
from mofa_gguf.engine.planning.ledger import reserved
from mofa_gguf.engine.planning.load_plan import LoadPlan
from mofa_gguf.engine.planning.plan import Plan, Share
from tests.support.tiny_gguf import TinyLlama, write_tiny_llama

pytestmark = pytest.mark.usefixtures("nothing_promised")

MIB = 2**20
REPOSITORY = Path(__file__).resolve().parents[3]


def pretended_plan(options: EngineOptions, *, total: int = 25) -> LoadPlan:
    """A plan for a machine with a GPU, where all that is asked for fits."""
    asked = options.n_gpu_layers
    n_layers = total if isinstance(asked, str) else asked
    shares = (Share("GPU0", n_layers, 1, 1, 1, 0, 9),) if n_layers else ()
    host = Share("CPU", total - n_layers, 1, 1, 1, 0, 9)
    return LoadPlan(
        Plan("m", 512, 512, "f16", "f16", n_layers, total, host, shares), options, 0, "", True
    )


@pytest.fixture
def attempts(monkeypatch: pytest.MonkeyPatch, tiny_model: Path) -> Iterator[list[int]]:
    """Loads on a pretended GPU; the list gets the layers of each attempt."""
    made: list[int] = []

    def plan(_header: GGUFHeader, options: EngineOptions) -> LoadPlan:
        return pretended_plan(options)

    monkeypatch.setattr(loading, "plan_load", plan)
    yield made
    assert reserved() == reserved("GPU0") == 0


def failing(made: list[int], error: EngineError, *, up_to: int) -> object:
    """A load that fails with more than ``up_to`` layers on the GPU."""

    def load(_header: GGUFHeader, load: LoadPlan, **_more: object) -> object:
        made.append(load.plan.n_gpu_layers)
        if load.plan.n_gpu_layers > up_to:
            raise error
        return Loaded()

    return load


class Loaded:
    """Stands for a model."""

    reservation = None

    def close(self) -> None:
        if self.reservation is not None:
            self.reservation.release()


def load(path: Path, options: EngineOptions) -> int | str:
    def build(model: Model, load: LoadPlan) -> int | str:
        model.close()
        return load.requested_layers

    return loading.load_model(path, options, build)


def test_a_gpu_that_runs_out_of_memory_gets_fewer_layers(
    tiny_model: Path,
    attempts: list[int],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(Model, "load", failing(attempts, OutOfMemory("full"), up_to=10))
    with caplog.at_level(logging.WARNING, logger="mofa_gguf"):
        assert load(tiny_model, EngineOptions()) == "auto"
    assert attempts == [25, 15, 9]
    assert "25 of 25 layers on GPU0 (full); trying 15" in caplog.text


def test_a_gpu_that_holds_nothing_leaves_the_cpu(
    tiny_model: Path, attempts: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Model, "load", failing(attempts, OutOfMemory("full"), up_to=0))
    assert load(tiny_model, EngineOptions(n_gpu_layers=4)) == 4
    assert attempts == [4, 2, 1, 0]


def test_a_required_gpu_that_holds_nothing_is_an_error(
    tiny_model: Path, attempts: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Model, "load", failing(attempts, OutOfMemory("full"), up_to=0))
    with pytest.raises(DeviceUnavailable, match="cannot hold a single layer: full"):
        load(tiny_model, EngineOptions(n_gpu_layers=2, require_gpu=True))
    assert attempts == [2, 1]


@pytest.mark.parametrize(
    ("error", "seen"),
    [
        (ModelFileError("m", "the driver said no"), [25, 0]),
        (UnsupportedModel("m", "unknown"), [25]),
        (OutOfMemory("full"), [25, 15, 9, 5, 3, 1, 0]),
    ],
)
def test_what_fails_on_the_cpu_too_is_told(
    tiny_model: Path,
    attempts: list[int],
    monkeypatch: pytest.MonkeyPatch,
    error: EngineError,
    seen: list[int],
) -> None:
    monkeypatch.setattr(Model, "load", failing(attempts, error, up_to=-1))
    with pytest.raises(type(error)):
        load(tiny_model, EngineOptions())
    assert attempts == seen


def test_a_worker_lost_while_loading_is_left_out_by_the_next_plan(
    tiny_model: Path, attempts: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Model, "load", failing(attempts, DeviceLost(("x:1",)), up_to=0))
    left = iter([25, 0])

    def plan(_header: GGUFHeader, options: EngineOptions) -> LoadPlan:
        return pretended_plan(EngineOptions(n_gpu_layers=next(left)))

    monkeypatch.setattr(loading, "plan_load", plan)
    load(tiny_model, EngineOptions())
    assert attempts == [25, 0]


def test_a_build_that_fails_gives_everything_back(tiny_model: Path) -> None:
    def build(_model: Model, _load: LoadPlan) -> None:
        assert reserved() > 0
        raise KeyError("an error of the caller's")

    with pytest.raises(KeyError):
        loading.load_model(tiny_model, EngineOptions(n_threads=1), build)
    assert reserved() == 0


def test_a_second_model_is_refused_what_the_first_one_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_tiny_llama(tmp_path / "m.gguf", TinyLlama(n_embd=256, n_ff=512))
    room = Room(40 * MIB, "a pretended limit")
    monkeypatch.setattr("mofa_gguf.engine.planning.fit.host_memory", lambda: HostMemory(room))
    options = EngineOptions(n_ctx=4096, n_threads=1, n_gpu_layers=0)
    first = Engine.load(path, options)
    # The pretended machine does not see what the first one took; the ledger holds the rest.
    taken = first.model.plan.host.n_bytes
    assert 0 < reserved() < taken
    monkeypatch.setattr(
        "mofa_gguf.engine.planning.fit.host_memory",
        lambda: HostMemory(Room(taken * 100 // 94, "a pretended limit")),
    )
    with pytest.raises(OutOfMemory, match="cannot be loaded"):
        Engine.load(path, options)
    first.close()
    assert reserved() == 0
    Engine.load(path, options).close()


CHILD = """
import json, resource, sys
limit = int(sys.argv[2])
from mofa_gguf.engine.engine import Engine
from mofa_gguf.engine.errors import EngineError
from mofa_gguf.engine.machine.memory import host_memory
from mofa_gguf.engine.native import llama
from mofa_gguf.engine.options import EngineOptions
from mofa_gguf.engine.requests.request import FinishEvent, GenerationRequest
from mofa_gguf.engine.requests.sampling import SamplingOptions
llama()
import psutil
if limit:
    taken = psutil.Process().memory_info().vms
    resource.setrlimit(resource.RLIMIT_AS, (taken + limit, taken + limit))
n_ctx = "auto" if sys.argv[3] == "auto" else int(sys.argv[3])
try:
    engine = Engine.load(sys.argv[1], EngineOptions(n_ctx=n_ctx, n_threads=1))
except EngineError as error:
    print(json.dumps({"error": type(error).__name__, "says": str(error)}))
    sys.exit()
greedy = SamplingOptions(temperature=0)
*_, last = engine.submit(GenerationRequest([1, 2, 3], greedy, max_tokens=4, ignore_eos=True))
assert isinstance(last, FinishEvent)
print(json.dumps({"n_ctx": engine.n_ctx}))
engine.close()
"""


def in_child(path: Path, *, limit: int, n_ctx: int | str, wrap: str = "") -> dict[str, object]:
    """Load in a process of its own; what it printed. It must end by itself."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", CHILD, str(path), str(limit), str(n_ctx)]
    if wrap:
        command = ["/bin/sh", "-c", f'{wrap} && exec "$@"', "sh", *command]
    run = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, env=environment)
    assert run.returncode == 0, (run.returncode, run.stderr[-2000:])
    told: dict[str, object] = json.loads(run.stdout)
    return told


@pytest.fixture(scope="module")
def long_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of 9 MiB whose trained context takes 128 MiB of cache."""
    shape = TinyLlama(n_layers=4, n_embd=256, n_heads=4, n_kv_heads=4, n_ff=512, n_ctx=32768)
    return write_tiny_llama(tmp_path_factory.mktemp("long") / "long.gguf", shape)


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS is enforced on Linux")
@pytest.mark.parametrize("mib", [64, 200, 400])
def test_under_a_limit_on_address_space_a_load_is_fitted_or_refused(
    long_model: Path, mib: int
) -> None:
    fitted = in_child(long_model, limit=mib * MIB, n_ctx="auto")
    fixed = in_child(long_model, limit=mib * MIB, n_ctx=32768)
    if mib == 64:
        assert fitted["error"] == "OutOfMemory"
    if mib == 400:
        assert int(str(fitted["n_ctx"])) >= 512
    else:
        assert fixed["error"] == "OutOfMemory"
        assert "ulimit -v" in str(fixed["says"])


def test_without_limits_the_same_load_is_made(long_model: Path) -> None:
    assert in_child(long_model, limit=0, n_ctx=32768) == {"n_ctx": 32768}


@pytest.fixture
def control_group() -> Iterator[Path]:
    """A control group with a memory limit of 160 MiB, where this process may make one."""
    base = Path("/sys/fs/cgroup")
    own = Path("/proc/self/cgroup").read_text() if base.is_dir() else ""
    v1 = next((line.split(":")[2] for line in own.splitlines() if ":memory:" in line), None)
    path = next((line.split(":")[2] for line in own.splitlines() if line.startswith("0::")), "")
    parent = base / "memory" / (v1 or "/").lstrip("/") if v1 else base / path.lstrip("/")
    group = parent / f"mofa-gguf-test-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made here ({error.strerror})")
    try:
        try:
            limit = "memory.limit_in_bytes" if v1 else "memory.max"
            (group / limit).write_text(str(160 * MIB))
        except OSError as error:
            pytest.skip(f"control groups of memory are not ours to limit ({error.strerror})")
        yield group
    finally:
        group.rmdir()


def test_under_a_control_groups_limit_a_load_is_fitted_or_refused(
    long_model: Path, control_group: Path
) -> None:
    enter = f"echo $$ > {control_group}/cgroup.procs"
    refused = in_child(long_model, limit=0, n_ctx=32768, wrap=enter)
    assert refused["error"] == "OutOfMemory"
    assert "control group" in str(refused["says"])
    assert "n_ctx=" in str(refused["says"])
    fitted = in_child(long_model, limit=0, n_ctx="auto", wrap=enter)
    assert 512 <= int(str(fitted["n_ctx"])) < 32768


@pytest.mark.skipif(sys.platform != "linux", reason="locked memory is limited on Linux")
def test_weights_that_cannot_be_locked_are_used_all_the_same(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # As root nothing limits locked memory, so what llama.cpp would log is put in its mouth.
    from mofa_gguf.engine.models import model as module

    line = "warning: failed to mlock 1048576-byte buffer (after previously locking 0 bytes)"
    params: list[object] = []
    original = module.model_params

    def model_params(options: EngineOptions, *rest: object, **more: object) -> object:
        made = original(options, *rest, **more)  # type: ignore[arg-type]
        params.append(made[0].load_mode)
        made[0].load_mode &= 1
        return made

    monkeypatch.setattr(module, "model_params", model_params)
    options = EngineOptions(n_threads=1, use_mlock=True)
    with caplog.at_level(logging.WARNING, logger="mofa_gguf"):
        Engine.load(tiny_model, options).close()
        assert "could not be locked" not in caplog.text
        module._tell_unlocked(tiny_model, options, ["something else", line])
    assert params == [3]
    assert "ulimit -l" in caplog.text


@pytest.mark.parametrize(("use_mmap", "mode"), [(True, 1), (False, 0)])
def test_mapping_is_as_asked_for(tiny_model: Path, use_mmap: bool, mode: int) -> None:
    from mofa_gguf.engine.planning.load_params import Placing, model_params

    params, _ = model_params(EngineOptions(), Placing(), use_mmap=use_mmap)
    assert params.load_mode == mode


def test_the_first_model_decides_about_memory_nodes(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[int] = []

    class Library:
        llama_numa_init = staticmethod(calls.append)

    monkeypatch.setattr(loading, "_numa", [])
    monkeypatch.setattr(loading, "llama", Library)
    with caplog.at_level(logging.WARNING, logger="mofa_gguf"):
        loading._spread_threads(EngineOptions())
        assert calls == []
        loading._spread_threads(EngineOptions(numa="isolate"))
        loading._spread_threads(EngineOptions(numa="isolate"))
        assert caplog.records == []
        loading._spread_threads(EngineOptions(numa="distribute"))
    assert calls == [2]
    assert "numa=distribute has no effect" in caplog.text

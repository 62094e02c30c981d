"""``providers`` and ``doctor``: what is installed, and does it work."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from mofa_gguf.cli import checks
from mofa_gguf.engine.errors import LibraryUnavailable
from tests.cli.conftest import Run, install_plugin
from tests.support.tiny_gguf import write_tiny_llama


def findings(result_out: str) -> dict[str, dict[str, str]]:
    return {found["what"]: found for found in json.loads(result_out)["findings"]}


def test_our_own_kind_is_listed_from_its_entry_point(run: Run) -> None:
    listed = json.loads(run("providers", "--json").out)
    (gguf,) = [entry for entry in listed["kinds"] if entry["kind"] == "gguf"]
    assert gguf["distribution"] == "mofa-gguf"
    assert "llama-cpp" in gguf["aliases"]
    assert listed["problems"] == []


def test_another_installed_plugin_shows_up(run: Run, plugin: Path) -> None:
    result = run("providers")
    assert result.code == 0
    assert "scripted-plugin 1.2" in result.out
    assert "says what it was told to" in result.out
    assert "mofa-gguf" in result.out


def test_a_broken_plugin_is_named_and_hides_nothing(
    run: Run, plugin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_plugin(plugin, module="broken_plugin", source="import does_not_exist_anywhere\n")
    result = run("providers")
    assert result.code == 0
    assert "scripted" in result.out
    assert "problem: the plugin 'broken_plugin' of broken-plugin 1.2" in result.err
    assert "does_not_exist_anywhere" in result.err
    (problem,) = json.loads(run("providers", "--json").out)["problems"]
    assert "does_not_exist_anywhere" in problem
    doctor = run("doctor", "--json")
    assert doctor.code == 1
    assert findings(doctor.out)["plugin"]["verdict"] == "broken"


def test_the_doctor_finds_a_sound_installation_sound(run: Run) -> None:
    result = run("doctor", "--json")
    found = findings(result.out)
    assert result.code == 0, result.out
    assert json.loads(result.out)["healthy"] is True
    assert found["llama.cpp"]["detail"].startswith("llama-cpp-python ")
    assert found["config file"]["verdict"] == "note"
    assert "gguf" in found["provider kinds"]["detail"]


def test_the_doctor_speaks_to_people_too(run: Run, configure: Callable[..., Path]) -> None:
    configure()
    result = run("doctor")
    assert result.code == 0
    assert "All is well." in result.out
    assert "provider 'test'" in result.out


def test_each_configured_provider_gets_a_verdict(run: Run, configure: Callable[..., Path]) -> None:
    path = configure('[providers.bad]\nprovider = "scripted"\nbroken = "its engine is missing"\n')
    path.write_text(path.read_text() + '[providers.gone]\nprovider = "gguf"\nmodel = "no.gguf"\n')
    path.write_text(path.read_text() + '[providers.what]\nprovider = "unheard-of"\n')
    result = run("doctor", "--json", "-c", path)
    found = findings(result.out)
    assert result.code == 1
    assert found["provider 'test'"]["verdict"] == "ok"
    assert "its engine is missing" in found["provider 'bad'"]["detail"]
    assert "no.gguf" in found["provider 'gone'"]["detail"]
    assert "no provider kind 'unheard-of'" in found["provider 'what'"]["detail"]


def test_a_build_that_does_not_load_is_a_fault_with_a_way_out(
    run: Run, configure: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone() -> str:
        raise LibraryUnavailable("no library 'llama' found", "reinstall it")

    configure()
    monkeypatch.setattr("mofa_gguf.engine.machine.devices.system_info", gone)
    found = findings(run("doctor", "--json").out)["llama.cpp"]
    assert (found["verdict"], found["advice"]) == ("broken", "reinstall it")
    assert "no library 'llama' found" in found["detail"]


MODEL = 'provider = "gguf"\nn_ctx = 64\n'
# What the config says of a provider, which finding that gives, and the finding: what it says of it
# and what to do.
FAULTS: list[tuple[str, str, str, str, str]] = [
    ('model = "absent.gguf"', "provider 'x'", "broken", "absent.gguf", "name a file, a folder"),
    ('model = "short.gguf"', "provider 'x'", "broken", "is truncated", "download it again"),
    ('model = "noise.gguf"', "provider 'x'", "broken", "is no GGUF file", "get it again"),
    ('model = "m.gguf"\nn_cxt = 3', "provider 'x'", "broken", "no option 'n_cxt'", "'n_ctx'?"),
    (
        'model = "m.gguf"\nn_gpu_layers = 9',
        "devices of 'x'",
        "note",
        "n_gpu_layers has no effect",
        "build llama.cpp for the GPU",
    ),
    (
        'model = "m.gguf"\nmain_gpu = 1\nsplit_mode = "none"',
        "devices of 'x'",
        "note",
        "main_gpu and split_mode have no effect",
        "leave main_gpu and split_mode out",
    ),
    (
        'model = "m.gguf"\nrequire_gpu = true',
        "provider 'x'",
        "broken",
        "a GPU is required",
        "install a GPU build",
    ),
    (
        'model = "m.gguf"\nrpc_servers = ["127.0.0.1:1"]',
        "provider 'x'",
        "broken",
        "has no RPC backend",
        "tools/build_rpc.py",
    ),
    (
        'model = "m.gguf"\ncache_dir = "m.gguf/cache"',
        "cache",
        "broken",
        "m.gguf/cache",
        "set cache_dir to a folder",
    ),
    (
        'model = "m.gguf"\ndraft_model = "absent.gguf"',
        "provider 'x'",
        "broken",
        "absent.gguf",
        "name a file",
    ),
]


@pytest.mark.parametrize(("lines", "what", "verdict", "says", "advises"), FAULTS)
def test_each_fault_of_a_model_is_found_with_a_way_out(
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    lines: str,
    what: str,
    verdict: str,
    says: str,
    advises: str,
) -> None:
    monkeypatch.setattr("mofa_gguf.engine.machine.rpc.has_rpc", lambda: False)
    # The environment would go before the file.
    monkeypatch.delenv("MOFA_GGUF_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(Path.cwd() / "cache"))
    sound = write_tiny_llama(Path("m.gguf"))
    Path("short.gguf").write_bytes(sound.read_bytes()[:-5000])
    Path("noise.gguf").write_bytes(bytes(range(200)))
    Path("mofa.toml").write_text(f"[providers.x]\n{MODEL}{lines}\n")
    result = run("doctor", "--json")
    faults = [
        each
        for each in json.loads(result.out)["findings"]
        if each["what"] == what and each["verdict"] == verdict
    ]
    assert result.code == (1 if verdict == "broken" else 0)
    (fault,) = faults
    assert says in fault["detail"]
    assert advises in fault["detail"] + fault["advice"]


def test_a_worker_that_does_not_answer_is_noted(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mofa_gguf.engine.machine.rpc.worker_devices", lambda servers: [])
    write_tiny_llama(Path("m.gguf"))
    Path("mofa.toml").write_text(
        f'[providers.x]\n{MODEL}model = "m.gguf"\nrpc_servers = ["127.0.0.1:1"]\n'
    )
    found = findings(run("doctor", "--json").out)["devices of 'x'"]
    assert found["verdict"] == "note"
    assert found["detail"] == "the worker 127.0.0.1:1 does not answer"
    assert "start `mofa-gguf worker` there" in found["advice"]


def test_each_of_several_models_gets_a_verdict(run: Run) -> None:
    write_tiny_llama(Path("m.gguf"))
    Path("mofa.toml").write_text(
        f'[providers.both]\n{MODEL}[providers.both.models]\na = "m.gguf"\nb = "absent.gguf"\n'
    )
    found = findings(run("doctor", "--json").out)
    assert found["plan for 'both/a'"]["verdict"] == "ok"
    assert found["provider 'both/a'"]["verdict"] == "ok"
    assert found["provider 'both/b'"]["verdict"] == "broken"


def test_extras_that_are_not_installed_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert checks.extras().detail == "serve, otel"
    assert checks.extras().advice == ""
    monkeypatch.setattr(checks, "find_spec", lambda name: None)
    found = checks.extras()
    assert found.verdict == "ok"
    assert found.detail == "none; not installed: serve, otel"
    assert "pip install 'mofa-gguf[serve,otel]'" in found.advice


def test_the_extras_are_those_of_the_distribution() -> None:
    project = Path(checks.__file__).parents[2] / "pyproject.toml"
    text = project.read_text(encoding="utf-8")
    listed = text.split("[project.optional-dependencies]")[1].split("\n[")[0]
    known = set(re.findall(r"^(\w+) = \[", listed, re.MULTILINE))
    assert set(checks._EXTRAS) == known - {"test", "lint"}


@pytest.mark.parametrize(
    ("content", "says"),
    [("nonsense = 1\n", "unknown key 'nonsense'"), ("[providers", "mofa.toml")],
)
def test_a_malformed_config_file_is_broken(run: Run, content: str, says: str) -> None:
    Path("mofa.toml").write_text(content)
    result = run("doctor")
    assert result.code == 1
    assert "1 thing is broken" in result.out
    assert says in result.out


def test_a_config_file_that_was_named_and_is_missing_is_broken(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("doctor", "-c", "none.toml").code == 1
    monkeypatch.setenv("MOFA_CONFIG", "none.toml")
    assert run("doctor").code == 1


def test_a_cache_folder_that_cannot_be_used_is_broken(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("MOFA_GGUF_CACHE_DIR", str(tmp_path / "file" / "cache"))
    found = findings(run("doctor", "--json").out)["cache"]
    assert found["verdict"] == "broken"
    assert "MOFA_GGUF_CACHE_DIR" in found["advice"]


def test_a_gpu_that_this_build_cannot_use_is_pointed_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert checks.no_gpu("none").verdict == "ok"
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    found = checks.no_gpu("none")
    assert found.verdict == "note"
    assert "-DGGML_CUDA=on" in found.advice


def test_the_features_of_the_build_are_those_that_are_on() -> None:
    info = "CPU : SSE3 = 1 | AVX2 = 1 | AVX512 = 0 | OPENMP = 1 | REPACK = 1 |"
    assert checks.cpu_features(info) == "built for SSE3, AVX2, OPENMP, REPACK"

"""``providers`` and ``doctor``: what is installed, and does it work."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from mofa_gguf.cli import checks
from tests.cli.conftest import Run, install_plugin


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

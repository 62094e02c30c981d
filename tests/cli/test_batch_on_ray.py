"""``batch --ray``: the plugin's provider kind, with all that was chosen. The plugin has its own
tests, on a real Ray."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mofa_gguf.cli.client import Choice
from mofa_gguf.cli.on_ray import open_on_ray
from mofa_gguf.settings import GGUFConfig
from tests.batch.conftest import read_lines, text_of, write_lines
from tests.cli.conftest import Run, install_plugin

COMMAND = ("batch", "in.jsonl", "-o", "out.jsonl")

# Answers every request with the options that it was made with.
TELLING = """
import json
from mofa_gguf.host import hookimpl
from mofa_gguf.host.testing import ScriptedProvider

class Telling(ScriptedProvider):
    async def chat(self, request):
        self._replies = iter([self.told])
        return await super().chat(request)

def make(config):
    made = Telling(model="m")
    made.config, made.told = config, json.dumps(config.options(), sort_keys=True)
    return made

@hookimpl
def mofa_register_providers(registry):
    registry.register("gguf-ray", make, aliases=["gguf-cluster"])
"""


@pytest.fixture
def lines() -> None:
    write_lines(Path("in.jsonl"), [{"prompt": "hello"}])


@pytest.fixture
def telling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(install_plugin(tmp_path / "ray", module="t", source=TELLING)))


def told() -> dict[str, object]:
    options: dict[str, object] = json.loads(text_of(read_lines(Path("out.jsonl"))[0]))
    return options


def test_without_the_plugin_it_is_named(run: Run, lines: None) -> None:
    result = run(*COMMAND, "-m", "demo", "--ray")
    assert result.code == 1
    assert "--ray needs the plugin mofa-gguf-ray" in result.err
    assert "pip install mofa-gguf-ray" in result.err
    assert result.err.count("\n") == 1
    assert not Path("out.jsonl").exists()


def test_a_named_model_goes_to_the_cluster(run: Run, lines: None, telling: None) -> None:
    assert run(*COMMAND, "-m", "demo", "--n-ctx", "512", "--ray").code == 0
    assert told() == {"model": "demo", "n_ctx": 512}


def test_an_address_is_enough(run: Run, lines: None, telling: None) -> None:
    assert run(*COMMAND, "-m", "demo", "--ray-address", "10.0.0.1:6379").code == 0
    assert told() == {"model": "demo", "ray_address": "10.0.0.1:6379"}


@pytest.mark.parametrize("kind", ["gguf", "llama-cpp", "gguf-ray", "gguf-cluster"])
def test_a_config_files_options_are_kept(run: Run, lines: None, telling: None, kind: str) -> None:
    table = f'[providers.x]\nprovider = "{kind}"\nmodel = "demo"\nray_address = "a:1"\n'
    Path("mofa.toml").write_text(f"{table}replicas = 2\n")
    assert run(*COMMAND, "--ray-address", "b:2").code == 0
    assert told() == {"model": "demo", "ray_address": "b:2", "replicas": 2}


def test_other_kinds_of_providers_do_not_go_to_ray(
    run: Run, lines: None, telling: None, plugin: Path
) -> None:
    Path("mofa.toml").write_text('[providers.x]\nprovider = "scripted"\n')
    result = run(*COMMAND, "--ray")
    assert result.code == 1
    assert "the config file's provider is of the kind 'scripted'" in result.err


def test_beside_a_provider_a_model_goes_by_its_name(run: Run, lines: None, telling: None) -> None:
    result = run(*COMMAND, "-m", "demo", "-p", "x", "--ray")
    assert result.code == 1
    assert "goes by its name there" in result.err


SEVERAL = """
[providers.x]
provider = "gguf"
model = "b"
models = {a = {model = "a.gguf", n_ctx = 5}, b = "b.gguf"}
replicas = 2
"""


def test_a_model_of_the_config_file_is_chosen_by_its_name(
    run: Run, lines: None, telling: None
) -> None:
    Path("mofa.toml").write_text(SEVERAL)
    assert run(*COMMAND, "-m", "a", "--ray-address", "b:2").code == 0
    models = {"a": {"model": "a.gguf", "n_ctx": 5}}
    assert told() == {"model": "a", "models": models, "ray_address": "b:2", "replicas": 2}


@pytest.mark.parametrize("model", ["a", "demo"])
def test_what_was_typed_goes_before_the_environment(
    telling: None, monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    Path("mofa.toml").write_text(SEVERAL)
    monkeypatch.setenv("MOFA_GGUF_MODEL", "another")
    monkeypatch.setenv("MOFA_GGUF_MODELS", '{"another": "x.gguf"}')
    made: Any = open_on_ray(Choice(model), None)
    options = {name: value for name, value in made.config.options().items() if name != "replicas"}
    heard = GGUFConfig.from_options(options, made.config.base_dir, chosen=made.config.chosen)
    assert (heard.model, list(heard.models)) == (model, ["a"] if model == "a" else [])

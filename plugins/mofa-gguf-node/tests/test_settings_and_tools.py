"""An agent's options and tools, from the environment of its node."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from mofa_gguf_node.main import make_agent
from mofa_gguf_node.providers import provider_from_environment
from mofa_gguf_node.runtime import Ports
from mofa_gguf_node.settings import AgentSettings, is_dataflow_end
from mofa_gguf_node.tools import load_tools

from mofa_gguf import ConfigError, GGUFProvider

SCHEMA = {"type": "object"}


def settings(base_dir: Path | None = None, **options: str) -> AgentSettings:
    environ = {f"MOFA_AGENT_{name.upper()}": value for name, value in options.items()}
    return AgentSettings.from_environment({"PATH": "/bin", **environ}, base_dir)


def test_silence_leaves_everything_to_the_model() -> None:
    assert settings().request_options() == {}
    assert settings(system="", temperature="") == settings()


def test_options_are_read_from_text() -> None:
    read = settings(temperature="0.5", max_tokens="9", seed="1", tools="a.py:f  b:g", session="s")
    assert read.request_options() == {"temperature": 0.5, "max_tokens": 9, "seed": 1}
    assert read.tools == ("a.py:f", "b:g")
    assert settings(options='{"top_k": 20}').request_options() == {"top_k": 20}


def test_a_schema_is_given_as_text_or_as_a_file(tmp_path: Path) -> None:
    (tmp_path / "schema.json").write_text(json.dumps(SCHEMA))
    assert settings(response_format=json.dumps(SCHEMA)).response_format == SCHEMA
    assert settings(tmp_path, response_format="schema.json").response_format == SCHEMA


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("temprature", "1", "did you mean MOFA_AGENT_TEMPERATURE"),
        ("temperature", "hot", "MOFA_AGENT_TEMPERATURE = 'hot'"),
        ("temperature", "9", "MOFA_AGENT_TEMPERATURE = '9'"),
        ("options", "{broken", "MOFA_AGENT_OPTIONS: its text is not JSON"),
        ("response_format", "nowhere.json", "nowhere.json cannot be read"),
        ("response_format", "{broken", "is not JSON"),
    ],
)
def test_a_wrong_option_is_named(name: str, value: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as raised:
        settings(**{name: value})
    assert raised.value.field == f"MOFA_AGENT_{name.upper()}"


@pytest.mark.parametrize(
    ("said", "status"), [(None, True), ("true", True), ("True", True), ("false", "false")]
)
def test_the_dataflows_end_is_told_as_mofa_core_tells_it(
    said: str | None, status: bool | str
) -> None:
    assert is_dataflow_end({} if said is None else {"IS_DATAFLOW_END": said}) == status


def test_tools_are_functions_of_files_and_modules(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def f(): return 1\ndef g(): return 2\n")
    tools = load_tools(["mine.py:f,g", "json:dumps"], tmp_path)
    assert [tool.__name__ for tool in tools] == ["f", "g", "dumps"]


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("mine.py", "names no function"),
        ("mine.py:", "names no function"),
        ("mine.py:h", "has no function 'h'; it has f"),
        ("mine.py:N", "has no function 'N'"),
        ("broken.py:f", "broken.py cannot be imported .ZeroDivisionError"),
        ("missing.py:f", "missing.py cannot be imported"),
        ("no_such_module:f", "no_such_module cannot be imported"),
    ],
)
def test_a_tool_that_is_not_to_be_had_is_named(tmp_path: Path, spec: str, said: str) -> None:
    (tmp_path / "mine.py").write_text("N = 1\ndef f(): return 1\n")
    (tmp_path / "broken.py").write_text("1 / 0\n")
    with pytest.raises(ConfigError, match=said):
        load_tools([spec], tmp_path)


def test_the_model_comes_from_the_environment_or_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOFA_GGUF_MODEL", "demo")
    monkeypatch.setenv("MOFA_GGUF_N_CTX", "256")
    provider = provider_from_environment()
    assert isinstance(provider, GGUFProvider)
    assert (provider.config.model, provider.config.n_ctx) == ("demo", 256)
    monkeypatch.setenv("MOFA_PROVIDER", "small")
    with pytest.raises(ConfigError, match="both set"):
        provider_from_environment()
    monkeypatch.delenv("MOFA_GGUF_MODEL")
    monkeypatch.delenv("MOFA_GGUF_N_CTX")
    file = tmp_path / "mofa.toml"
    file.write_text(
        'default = "a"\n[providers.a]\nprovider = "gguf"\nmodel = "demo"\n'
        '[providers.small]\nprovider = "gguf"\nmodel = "demo"\nn_ctx = 64\n'
    )
    monkeypatch.setenv("MOFA_CONFIG", str(file))
    small = provider_from_environment()
    assert isinstance(small, GGUFProvider)
    assert small.config.n_ctx == 64


@pytest.mark.parametrize(
    ("inputs", "outputs"), [({"query": "a", "response": "b"}, ()), ({"query": "a"}, ("request",))]
)
def test_half_a_connection_to_a_provider_node_is_refused(
    inputs: dict[str, str], outputs: tuple[str, ...]
) -> None:
    with pytest.raises(ConfigError, match="one of them is missing"):
        make_agent(Ports(inputs, frozenset(outputs)), lambda outgoing: None)


def test_dora_sees_the_environment_when_it_asks_uv_from_the_projects_folders() -> None:
    plugin = Path(__file__).resolve().parent.parent
    for folder in (plugin, plugin.parent.parent):
        settings = (folder / "pyproject.toml").read_text().partition("[tool.uv]")[2]
        assert settings.strip().startswith("managed = false"), folder

"""Which model is prepared, with its progress shown, before a command talks to it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mofa_gguf.cli import client
from mofa_gguf.cli.client import Choice, open_client
from mofa_gguf.cli.errors import CommandError
from mofa_gguf.settings import GGUFConfig

PLAIN = """
[providers.local]
provider = "gguf"
model = "demo"
"""
RETRIED = PLAIN + "max_retries = 2\n"
CHAINED = (
    PLAIN
    + """
[providers.safe]
provider = "fallback-chain"
max_retries = 1
providers = ["local", {provider = "gguf", model = "another.gguf"}]
"""
)
SEVERAL = """
[providers.local]
provider = "gguf"
model = "b"
models = {a = "a.gguf", b = "demo"}
"""
SINGLE = """
[providers.one]
provider = "gguf"
name = "single"
model = "single.gguf"
"""


@pytest.fixture
def prepared(monkeypatch: pytest.MonkeyPatch) -> list[GGUFConfig]:
    """The configurations of the models that are prepared."""
    found: list[GGUFConfig] = []
    monkeypatch.setattr(client, "_prepare", found.append)
    return found


@pytest.mark.parametrize(
    ("text", "name"), [(PLAIN, None), (RETRIED, None), (CHAINED, "safe"), (SEVERAL, None)]
)
def test_the_model_that_is_asked_first_is_prepared_however_it_is_wrapped(
    text: str, name: str | None, prepared: list[GGUFConfig], tmp_path: Path
) -> None:
    file = tmp_path / "mofa.toml"
    file.write_text(text)
    with open_client(Choice(config=file, provider=name)):
        assert [config.model for config in prepared] == ["demo"]


def test_a_chain_at_the_head_of_a_chain_is_looked_into(
    prepared: list[GGUFConfig], tmp_path: Path
) -> None:
    file = tmp_path / "mofa.toml"
    inner = '{provider = "fallback-chain", providers = [{provider = "gguf", model = "x"}]}'
    file.write_text(
        f'{PLAIN}[providers.safe]\nprovider = "fallback-chain"\nproviders = [{inner}, "local"]\n'
    )
    with open_client(Choice(config=file, provider="safe")):
        assert [config.model for config in prepared] == ["x"]


def test_another_kind_of_provider_has_nothing_to_prepare(
    prepared: list[GGUFConfig], configure: Callable[[str], Path]
) -> None:
    with open_client(Choice(config=configure("max_retries = 2"))):
        assert prepared == []


TWO = SEVERAL + '[providers.other]\nprovider = "gguf"\nmodels = {c = "c.gguf"}\n'


@pytest.fixture
def several(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A config file in the working folder, of two providers with models by name."""
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "mofa.toml"
    file.write_text('default = "local"\n' + TWO)
    return file


@pytest.mark.parametrize("name", ["a", "b", "c"])
def test_a_model_of_any_provider_is_chosen_by_its_configured_name(
    name: str, prepared: list[GGUFConfig], several: Path
) -> None:
    wanted = {"a": "a.gguf", "b": "demo", "c": "c.gguf"}[name]
    with open_client(Choice(name)) as opened:
        assert opened.provider.default_model() == name
        assert [Path(config.model).name for config in prepared] == [wanted]


def test_a_configured_name_goes_before_a_file_and_a_path_is_always_the_file(
    prepared: list[GGUFConfig], several: Path
) -> None:
    (several.parent / "a").mkdir()
    for model in ("a", "./a"):
        with open_client(Choice(model)):
            pass
    assert [Path(config.model).name for config in prepared] == ["a.gguf", "a"]


def test_a_name_that_is_no_model_is_answered_with_the_names_there_are(several: Path) -> None:
    with pytest.raises(CommandError, match=r"'d' is neither a model of .* names a, b and c, nor"):
        open_client(Choice("d"))


def test_only_the_models_of_the_provider_that_is_named_are_looked_at(several: Path) -> None:
    with pytest.raises(CommandError, match=r"'a' is not the name of a model there; .* names c,"):
        open_client(Choice("a", provider="other"))


def test_a_path_needs_no_sound_config_file(prepared: list[GGUFConfig], several: Path) -> None:
    several.write_text("no toml")
    with open_client(Choice("demo")):
        assert [config.model for config in prepared] == ["demo"]


def test_a_name_that_two_providers_have_is_the_default_ones_or_needs_a_choice(
    prepared: list[GGUFConfig], several: Path
) -> None:
    twice = TWO.replace("c = ", "a = ")
    several.write_text(twice)
    with pytest.raises(CommandError, match="choose one of them with -p: local, other"):
        open_client(Choice("a"))
    several.write_text('default = "other"\n' + twice)
    with open_client(Choice("a")):
        assert [Path(config.model).name for config in prepared] == ["c.gguf"]


def test_models_that_are_warmed_up_by_name_may_be_chosen_singly(
    prepared: list[GGUFConfig], several: Path
) -> None:
    several.write_text(SEVERAL + 'warm_up = ["a"]\n')
    with open_client(Choice("b")) as opened:
        assert opened.provider.default_model() == "b"


@pytest.mark.parametrize("names", ['["a"]', '["a", "b"]', "true", "false"])
@pytest.mark.parametrize("name", ["a", "b", "single"])
def test_what_the_environment_warms_up_may_be_chosen_singly(
    name: str,
    names: str,
    prepared: list[GGUFConfig],
    several: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    several.write_text(SEVERAL + SINGLE)
    monkeypatch.setenv("MOFA_GGUF_WARM_UP", names)
    with open_client(Choice(name)) as opened:
        assert opened.provider.default_model() == name
        if name != "single":
            assert prepared[0].warm_up is (names == "true" or f'"{name}"' in names)


@pytest.mark.parametrize("variable", ["MODEL", "NAME", "MODELS"])
@pytest.mark.parametrize("name", ["a", "b", "single"])
def test_the_name_that_was_typed_goes_before_the_environment(
    name: str,
    variable: str,
    prepared: list[GGUFConfig],
    several: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    several.write_text(SEVERAL + SINGLE)
    value = '{"x": "y.gguf"}' if variable == "MODELS" else "another"
    monkeypatch.setenv(f"MOFA_GGUF_{variable}", value)
    wanted = {"a": "a.gguf", "b": "demo", "single": "single.gguf"}[name]
    with open_client(Choice(name)) as opened:
        assert opened.provider.default_model() == name
        assert [Path(config.model).name for config in prepared] == [wanted]


def test_a_path_that_was_typed_goes_before_the_models_of_the_environment(
    prepared: list[GGUFConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOFA_GGUF_MODELS", '{"x": "y.gguf"}')
    monkeypatch.setenv("MOFA_GGUF_MODEL", "x")
    with open_client(Choice("demo")) as opened:
        assert opened.provider.supported_models() == ["demo"]
        assert [config.model for config in prepared] == ["demo"]


def test_other_options_of_a_model_chosen_by_name_still_come_from_the_environment(
    prepared: list[GGUFConfig], several: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOFA_GGUF_N_CTX", "77")
    with open_client(Choice("a")):
        assert [config.n_ctx for config in prepared] == [77]

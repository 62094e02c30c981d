"""Which model is prepared, with its progress shown, before a command talks to it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mofa_gguf.cli import client
from mofa_gguf.cli.client import Choice, open_client
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

"""Runs commands in this process, with a provider that needs no model."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from mofa_gguf.cli.main import main

PLUGIN = """
from mofa_gguf.contract import ChatMessage, ConfigError
from mofa_gguf.host import hookimpl
from mofa_gguf.host.testing import ScriptedProvider


def make(config):
    options = dict(config.extra)
    replies = options.pop("replies", None)
    if config.extra.get("reasoning"):
        message = ChatMessage.assistant(replies[0])
        message.reasoning_content = options.pop("reasoning")
        replies = [message]
    options.pop("model", None)
    if "broken" in options:
        raise ConfigError(options.pop("broken"))
    return ScriptedProvider(replies, model=config.extra.get("model", "scripted"), **options)


@hookimpl
def mofa_register_providers(registry):
    registry.register("scripted", make, aliases=["echo"], description="says what it was told to")
"""


@dataclass(frozen=True)
class Ran:
    """What a command did."""

    code: int
    out: str
    err: str


Run = Callable[..., Ran]


@pytest.fixture(autouse=True)
def quiet_surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No config file or cache of the machine."""
    monkeypatch.setenv("MOFA_GGUF_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config-home"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for variable in ("MOFA_CONFIG", "MOFA_GGUF_DEBUG", "MOFA_GGUF_MODEL"):
        monkeypatch.delenv(variable, raising=False)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run ``mofa-gguf`` with arguments, and with text on standard input."""

    def run(*arguments: object, stdin: str = "") -> Ran:
        monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    return run


def install_plugin(folder: Path, *, module: str = "scripted_plugin", source: str = PLUGIN) -> Path:
    """Put an importable distribution with a MoFA plugin into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{module}.py").write_text(source)
    distribution = module.replace("_", "-")
    info = folder / f"{module}-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(f"[mofa]\n{module} = {module}\n")
    return folder


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The scripted provider's plugin, installed for this test."""
    folder = install_plugin(tmp_path / "site")
    monkeypatch.syspath_prepend(str(folder))
    return folder


@pytest.fixture
def configure(plugin: Path) -> Callable[[str], Path]:
    """Write a mofa.toml into the working folder that chooses the scripted provider."""

    def configure(options: str = "") -> Path:
        path = Path.cwd() / "mofa.toml"
        path.write_text(f'[providers.test]\nprovider = "scripted"\n{options}\n')
        return path

    return configure

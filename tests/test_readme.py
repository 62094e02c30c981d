"""Every command and example of the README is run, or held against what it names."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
DEMO = REPOSITORY / "mofa_gguf" / "data" / "demo"

# Run by the continuous integration, by a person, or by building llama.cpp anew: not from a test.
NOT_RUN_HERE = ("make ", "pip install", "CMAKE_ARGS=")


def blocks(language: str) -> list[str]:
    """The README's code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.M | re.S)


def commands() -> list[str]:
    """The README's shell commands, without comments."""
    lines = [line for block in blocks("console") for line in block.splitlines()]
    return [line[2:].split("  #")[0].strip() for line in lines if line.startswith("$ ")]


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def folder(tmp_path: Path, cache: Path) -> Path:
    """A working folder as the README's reader has it: its config file, a checkpoint."""
    (tmp_path / "mofa.toml").write_text(blocks("toml")[0], encoding="utf-8")
    shutil.copytree(DEMO, tmp_path / "my-finetune")
    return tmp_path


def run(command: list[str], folder: Path, cache: Path) -> str:
    """Standard output of a command that must succeed without a word on standard error."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("MOFA_")}
    environment = {**inherited, "MOFA_GGUF_CACHE_DIR": str(cache)}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("example", blocks("python"))
def test_python_examples_run_and_say_something(example: str, folder: Path, cache: Path) -> None:
    assert run([sys.executable, "-c", example], folder, cache).strip()


@pytest.mark.parametrize(
    "command", [c for c in commands() if not c.startswith(NOT_RUN_HERE)], ids=lambda c: c[:40]
)
def test_commands_run(command: str, folder: Path, cache: Path) -> None:
    program, *arguments = command.split()
    assert program == "mofa-gguf"
    assert run([sys.executable, "-m", "mofa_gguf", *arguments], folder, cache).strip()


def test_the_two_commands_are_targets_of_the_makefile() -> None:
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    named = {c.split()[1] for c in commands() if c.startswith("make ")}
    assert named == {"demo", "test"}
    for target in named:
        assert re.search(rf"^{target}:", makefile, flags=re.M)


def test_every_command_of_the_table_exists_and_none_is_missing(folder: Path, cache: Path) -> None:
    listed = set(re.findall(r"^\| `mofa-gguf (\w+)", README, flags=re.M))
    help_text = run([sys.executable, "-m", "mofa_gguf", "--help"], folder, cache)
    for name in listed:
        assert re.search(rf"\b{name}\b", help_text), name
        run([sys.executable, "-m", "mofa_gguf", name, "--help"], folder, cache)
    from mofa_gguf.cli.main import app

    assert listed == {command.name for command in app.registered_commands}


def test_the_pinned_version_is_the_one_that_the_readme_names() -> None:
    pinned = re.search(r'"llama-cpp-python==([\d.]+)"', (REPOSITORY / "pyproject.toml").read_text())
    assert pinned is not None
    assert f"llama-cpp-python {pinned.group(1)}" in README


def test_links_to_files_of_the_repository_exist() -> None:
    for path in re.findall(r"`((?:plugins|tools|docs|mofa_gguf)/[\w./-]*)`", README):
        assert (REPOSITORY / path).exists(), path

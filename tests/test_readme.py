"""Every command and example of the README is run, or held against what it names."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.support import pages

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")

# Run by the continuous integration, by a person, or by building llama.cpp anew: not from a test.
NOT_RUN_HERE = ("make ", "pip install", "CMAKE_ARGS=")


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working folder as the README's reader has it: its config file, a checkpoint."""
    (tmp_path / "mofa.toml").write_text(pages.blocks(README, "toml")[0], encoding="utf-8")
    shutil.copytree(pages.DEMO, tmp_path / "my-finetune")
    return tmp_path


def test_python_examples_run_and_say_something(folder: Path, cache: Path) -> None:
    examples = pages.blocks(README, "python")
    said = pages.run(examples, folder, pages.surroundings(cache))
    assert len(said) == len(examples)
    assert all(text.strip() for text in said), said


def test_commands_run(folder: Path, cache: Path) -> None:
    commands = [c for c in pages.commands(README) if not c.startswith(NOT_RUN_HERE)]
    said = pages.run([pages.arguments_of(c) for c in commands], folder, pages.surroundings(cache))
    assert len(said) == len(commands)
    assert all(text.strip() for text in said), said


def test_the_two_commands_are_targets_of_the_makefile() -> None:
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    named = {c.split()[1] for c in pages.commands(README) if c.startswith("make ")}
    assert named == {"demo", "test"}
    for target in named:
        assert re.search(rf"^{target}:", makefile, flags=re.M)


def test_every_command_of_the_table_exists_and_none_is_missing() -> None:
    from mofa_gguf.cli.main import COMMANDS

    listed = re.findall(r"^\| `mofa-gguf (\w+)", README, flags=re.M)
    assert sorted(listed) == sorted(COMMANDS)


def test_the_pinned_version_is_the_one_that_the_readme_names() -> None:
    pinned = re.search(r'"llama-cpp-python==([\d.]+)"', (REPOSITORY / "pyproject.toml").read_text())
    assert pinned is not None
    assert f"llama-cpp-python {pinned.group(1)}" in README


def test_links_to_files_of_the_repository_exist() -> None:
    for path in re.findall(r"`((?:plugins|tools|docs|mofa_gguf)/[\w./-]*)`", README):
        assert (REPOSITORY / path).exists(), path


def test_figures_are_those_of_the_last_measurement() -> None:
    results = (REPOSITORY / "tools" / "bench" / "results" / "README.md").read_text("utf-8")
    measured = {
        (cells[0], cells[1]): dict(
            zip(("wall", "rate", "first"), (cells[2], *cells[4:6]), strict=True)
        )
        for cells in table_rows(results)
        if len(cells) == 8
    }
    rows = {
        "8 agents with one system prompt, seconds": ("b 8 agents, one system prompt", "wall"),
        "4 conversations of 4 turns at once, seconds": ("c 4 agents, 4 turns", "wall"),
        "16 short answers at once, seconds": ("e 16 streams", "wall"),
        "one answer, tokens a second": ("a one stream", "rate"),
        "first token of a short prompt, seconds": ("d first token", "first"),
    }
    told = {cells[0]: cells[1:] for cells in table_rows(README) if cells[0] in rows}
    servers = ("llama-server, CMake's flags", "llama-server, our flags")
    roads = ("mofa-gguf", "Llama + lock", *servers)
    assert told == {
        title: [measured[workload, road][figure] for road in roads]
        for title, (workload, figure) in rows.items()
    }


def test_the_converters_figures_are_those_of_the_last_measurement() -> None:
    results = (REPOSITORY / "tools" / "bench" / "results" / "README.md").read_text("utf-8")
    titles = {"MiniLM F16": "all-MiniLM-L6-v2 to F16"}
    measured: dict[str, dict[str, list[str]]] = {}
    for cells in table_rows(results):
        if len(cells) > 5 and cells[1] in ("mofa-gguf", "llama.cpp"):
            title = titles.get(cells[0], cells[0])
            measured.setdefault(title, {})[cells[1]] = [cells[2], cells[3], cells[5]]
    told = {cells[0]: cells[1:] for cells in table_rows(README) if cells[0] in measured}
    assert told.keys() >= {"Q4_K_M", "Q8_0", "Q6_K", "all-MiniLM-L6-v2 to F16"}
    for title, cells in told.items():
        ours, theirs = measured[title]["mofa-gguf"], measured[title]["llama.cpp"]
        memory = f"{ours[2]} GB, {theirs[2]} GB"
        assert cells == [f"{ours[0]} s", f"{theirs[0]} s", ours[1], memory]


def table_rows(text: str) -> list[list[str]]:
    """The cells of each row of a page's tables."""
    lines = [line.strip() for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]

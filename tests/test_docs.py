"""The examples of docs/ are run, page by page, as the README's are."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from mofa_gguf.host.config_files import read_table
from tests.conftest import REPOSITORY
from tests.support import pages

DOCS = REPOSITORY / "docs"
PAGES = sorted(DOCS.glob("*.md"))
SERVER = "http://127.0.0.1:8080/v1"

# Installing, dora (its examples are the plugin's tests), and what runs until it is stopped.
NOT_RUN_HERE = ("pip install", "dora run", "mofa-gguf serve")


def blocks(page: Path, language: str) -> list[str]:
    """A page's code blocks of a language."""
    return pages.blocks(page.read_text("utf-8"), language)


def examples(page: Path) -> list[str]:
    """The Python blocks that are programs; those that name a file are modules."""
    return [block for block in blocks(page, "python") if not named(block)]


def named(block: str) -> str | None:
    """The file that a block is, where its first line says so."""
    found = re.match(r"# ([\w.]+\.(?:py|toml))\n", block)
    return found and found.group(1)


def commands(page: Path) -> list[str]:
    return pages.commands(page.read_text("utf-8"))


def commands_run_here(page: Path) -> list[str]:
    here = [command for command in commands(page) if not command.startswith(NOT_RUN_HERE)]
    return [command for command in here if "--ray" not in command]  # the plugin's tests do


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def environment(cache: Path, tmp_path: Path) -> dict[str, str]:
    """Nothing of ours from outside; modules of the working folder can be imported."""
    return pages.surroundings(cache, PYTHONPATH=str(tmp_path))


def prepare(page: Path, folder: Path) -> None:
    """A working folder as the page's reader has it: its files, and a plugin that is installed."""
    for block in [*blocks(page, "python"), *blocks(page, "toml")]:
        name = named(block)
        if name is not None:
            (folder / name).write_text(block, encoding="utf-8")
    for block in blocks(page, "jsonl"):
        (folder / "questions.jsonl").write_text(block, encoding="utf-8")
    (folder / "my-text.txt").write_text(page.read_text("utf-8"), encoding="utf-8")
    project = folder / "pyproject.toml"
    if project.exists():
        described = read_table(project)["project"]
        info = folder / f"{described['name']}-{described['version']}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {described['name']}\nVersion: {described['version']}\n"
        )
        points = "".join(f"{k} = {v}\n" for k, v in described["entry-points"]["mofa"].items())
        (info / "entry_points.txt").write_text(f"[mofa]\n{points}")
    shutil.copytree(pages.DEMO, folder / "my-finetune")


@pytest.mark.parametrize(
    "page", [p for p in PAGES if examples(p) and p.stem != "server"], ids=lambda p: p.stem
)
def test_examples_run_and_say_something(
    page: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    prepare(page, tmp_path)
    said = pages.run(examples(page), tmp_path, environment)
    if page.stem == "observability":  # sets logging up, and nothing happens yet
        return
    assert len(said) == len(examples(page))
    assert all(text.strip() for text in said), said


def test_the_servers_example_reaches_the_server(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    page = DOCS / "server.md"
    (command,) = [c for c in commands(page) if c.startswith("mofa-gguf serve")]
    arguments = [*command.split()[1:], "--port", "0"]
    process = subprocess.Popen(
        [sys.executable, "-m", "mofa_gguf", *arguments],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().split()[-1]
        (example,) = examples(page)
        assert SERVER in example
        said = pages.run([example.replace(SERVER, url)], tmp_path, environment)
        assert "MoFA" in said[0]
    finally:
        process.terminate()
        process.communicate(timeout=20)


@pytest.mark.parametrize("page", [p for p in PAGES if commands_run_here(p)], ids=lambda p: p.stem)
def test_commands_run_in_their_order(
    page: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    prepare(page, tmp_path)
    arguments = [pages.arguments_of(command) for command in commands_run_here(page)]
    said = pages.run(arguments, tmp_path, environment)
    assert len(said) == len(arguments)
    assert all(text.strip() for text in said), said


def test_plugins_hooks_are_found_and_families_can_be_registered(tmp_path: Path) -> None:
    from mofa_gguf.convert.plugins import FamilyRegistry

    page = DOCS / "plugins.md"
    (source,) = [b for b in blocks(page, "python") if named(b) == "acme_family.py"]
    scope: dict[str, object] = {}
    exec(source, scope)
    registry = FamilyRegistry({})
    scope["mofa_register_families"](registry)  # type: ignore[operator]
    assert list(registry.families) == ["AcmeForCausalLM"]


def test_dataflows_name_nodes_and_outputs_that_exist() -> None:
    project = read_table(REPOSITORY / "plugins/mofa-gguf-node/pyproject.toml")
    for text in blocks(DOCS / "dataflows.md", "yaml"):
        nodes = {node["id"]: node for node in yaml.safe_load(text)["nodes"]}
        for node in nodes.values():
            assert node["path"] in project["project"]["scripts"]
            for source in (each["source"] for each in node["inputs"].values()):
                sender, output = source.split("/")
                assert sender == "asker" or output in nodes[sender]["outputs"]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_links_and_named_files_exist(page: Path) -> None:
    text = page.read_text("utf-8")
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert target.startswith("https://") or (DOCS / target).exists(), target
    for path in re.findall(r"`((?:plugins|tools|docs|mofa_gguf)/[\w./-]*)`", text):
        assert (REPOSITORY / path).exists(), path


def test_every_page_is_in_the_index() -> None:
    index = (DOCS / "README.md").read_text("utf-8")
    assert all(f"({page.name})" in index for page in PAGES if page.name != "README.md")


def test_troubles_are_told_in_the_words_of_the_program() -> None:
    source = "\n".join(path.read_text("utf-8") for path in (REPOSITORY / "mofa_gguf").rglob("*.py"))
    table = (DOCS / "operator.md").read_text("utf-8").split("## Troubles")[1].split("##")[0]
    phrases = re.findall(r"^\| `([^`]+)` \|", table, flags=re.M)
    assert len(phrases) > 10
    assert [phrase for phrase in phrases if phrase not in source] == []


def test_settings_that_are_told_of_exist() -> None:
    from mofa_gguf import GGUFConfig

    text = (DOCS / "operator.md").read_text("utf-8")
    table = text.split("| setting |")[1].split("\n\n")[0]
    names = {name for row in re.findall(r"^\| (`.*?) \|", table, flags=re.M)
             for name in re.findall(r"`(\w+)`", row)}  # fmt: skip
    assert names
    assert names <= set(GGUFConfig.model_fields)


def test_every_checkpoint_is_accounted_for_beside_llama_cpps_converter() -> None:
    text = (REPOSITORY / "tools" / "peer_differences.md").read_text("utf-8")
    named = set(re.findall(r"[a-z0-9][a-z0-9-]*", text))
    configs = (REPOSITORY / "tests" / "data" / "parity").glob("*/config.json")
    assert {config.parent.name for config in configs} <= named

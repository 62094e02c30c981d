"""``pull``, and models named by a hub id, against a hub on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.store.fake_hub import FakeHub
from tests.support.tiny_gguf import write_tiny_llama

Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub() as hub:
        yield hub


@pytest.fixture
def command(hub: FakeHub) -> Command:
    """Run in a process of its own: the hub's address is read once, from the environment."""

    def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        code = "import sys; from mofa_gguf.cli.main import main; sys.exit(main())"
        return subprocess.run(
            [sys.executable, "-c", code, *arguments],
            env={**os.environ, "HF_ENDPOINT": hub.endpoint, "NO_PROXY": "127.0.0.1", **environment},
            capture_output=True,
            text=True,
            timeout=60,
        )

    return command


@pytest.fixture
def model(hub: FakeHub, tmp_path: Path) -> bytes:
    content = write_tiny_llama(tmp_path / "tiny.gguf").read_bytes()
    hub.add("org/tiny", {"tiny-F32.gguf": content, "README.md": b"tiny"})
    return content


def test_a_pulled_model_is_on_disk_and_answers_without_a_network(
    command: Command, hub: FakeHub, model: bytes
) -> None:
    pulled = command("pull", "org/tiny")
    assert pulled.returncode == 0, pulled.stderr
    path = Path(pulled.stdout.strip())
    assert path.read_bytes() == model
    assert "downloading org/tiny" in pulled.stderr
    hub.requests.clear()
    facts = json.loads(command("inspect", "org/tiny", "--json", HF_HUB_OFFLINE="1").stdout)
    assert facts["path"] == str(path)
    asked = command("ask", "hello", "-m", "org/tiny:F32", "-n", "3", "--json", HF_HUB_OFFLINE="1")
    assert asked.returncode == 0, asked.stderr
    assert hub.requests == []


def test_a_hub_id_is_downloaded_by_the_first_command_that_needs_it(
    command: Command, hub: FakeHub, model: bytes
) -> None:
    embedded = command("embed", "hello", "-m", "hf://org/tiny")
    assert embedded.returncode == 0, embedded.stderr
    assert len(json.loads(embedded.stdout)["embedding"]) == 64
    assert hub.gets()["tiny-F32.gguf"] > 0


def test_a_refused_download_is_one_line(command: Command, hub: FakeHub) -> None:
    refused = command("pull", "org/unknown")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith("error: cannot get 'org/unknown' from the hub: there is no")
    assert refused.stderr.count("\n") == 1


def test_offline_the_error_says_what_to_do(command: Command, hub: FakeHub, model: bytes) -> None:
    refused = command("ask", "hello", "-m", "org/tiny", HF_HUB_OFFLINE="1")
    assert refused.returncode == 1
    assert "run 'mofa-gguf pull org/tiny'" in refused.stderr
    assert hub.requests == []


def test_the_result_comes_as_json(command: Command, hub: FakeHub, model: bytes) -> None:
    pulled = command("pull", "org/tiny:tiny-F32.gguf", "--json")
    answer = json.loads(pulled.stdout)
    assert (answer["kind"], pulled.stderr) == ("gguf", "")
    assert Path(answer["path"]).name == "tiny-F32.gguf"

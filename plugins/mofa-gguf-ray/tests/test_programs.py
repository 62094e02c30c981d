"""Programs that use a cluster and are killed: batches that are gone on with, replicas that go."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import OPTIONS, RayHere
from mofa_gguf_ray import RayProvider

pytestmark = pytest.mark.ray

N_LINES, N_KILLS = 500, 3
MAIN = "import sys; from mofa_gguf.cli.main import main; sys.exit(main())"
COMMAND = (sys.executable, "-c", MAIN, "batch", "in.jsonl", "-o", "out.jsonl")

# Begins replicas of its own, and never ends them.
OWNER = """
import asyncio, json, sys, time
from mofa_gguf_ray import RayConfig, RayProvider
asyncio.run(RayProvider(RayConfig(**json.loads(sys.argv[1]))).load())
print("begun", flush=True)
time.sleep(600)
"""


def test_500_lines_on_ray_killed_three_times_are_each_there_once(
    here: RayHere, provider: RayProvider, tmp_path: Path
) -> None:
    lines: list[dict[str, Any]] = [
        {"custom_id": f"q{n}", "prompt": f"What is {n} + 2?", "max_tokens": 4, "temperature": 0}
        for n in range(N_LINES - 1)
    ]
    lines.append({"custom_id": "long", "prompt": "word " * 3000})
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "mofa.toml").write_text(table_of(here))
    output = tmp_path / "out.jsonl"
    for n_lines in sorted(random.sample(range(N_LINES // 20, N_LINES * 8 // 10), N_KILLS)):
        with running(here, tmp_path) as child:
            try:
                wait_for_lines(output, n_lines, child)
                time.sleep(random.uniform(0, 0.05))
            finally:
                child.kill()
        assert child.returncode == -signal.SIGKILL
    with running(here, tmp_path) as child:
        assert child.wait(120) == 1  # of a line that failed
    answers = [json.loads(line) for line in output.read_text().splitlines()]
    assert sorted(each["custom_id"] for each in answers) == sorted(e["custom_id"] for e in lines)
    failed = [each for each in answers if each["error"] is not None]
    assert [each["error"]["code"] for each in failed] == ["context_length_exceeded"]


def table_of(here: RayHere) -> str:
    """A configuration file for the shared replicas, which says nothing of where they are."""
    options = {
        **OPTIONS,
        "provider": "gguf",
        "cache_dir": str(here.cache_dir),
        "replicas": 2,
        "cpus": 1,
        "deployment": "shared",
    }
    return "[providers.x]\n" + "".join(f"{k} = {json.dumps(v)}\n" for k, v in options.items())


def running(here: RayHere, folder: Path) -> subprocess.Popen[bytes]:
    """The command that answers the lines on the cluster."""
    return subprocess.Popen([*COMMAND, "--ray-address", here.address], cwd=folder)


def wait_for_lines(output: Path, n_lines: int, child: subprocess.Popen[bytes]) -> None:
    deadline_s = time.monotonic() + 120
    while not output.exists() or output.read_bytes().count(b"\n") < n_lines:
        assert child.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline_s
        time.sleep(0.005)


def test_the_replicas_of_a_program_that_was_killed_end_by_themselves(
    here: RayHere, provider: RayProvider
) -> None:
    from ray import serve

    options = {
        **OPTIONS,
        "cache_dir": str(here.cache_dir),
        "ray_address": here.address,
        "cpus": 1,
        "deployment": "doomed",
    }
    command = [sys.executable, "-c", OWNER, json.dumps(options)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == b"begun\n"
            assert "doomed" in serve.status().applications
        finally:
            child.kill()
    deadline_s = time.monotonic() + 60
    while "doomed" in serve.status().applications:
        assert time.monotonic() < deadline_s
        time.sleep(0.2)
    assert asyncio.run(provider.health_check())

"""Programs that use a cluster and are killed: batches that are gone on with, replicas that go."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from conftest import OPTIONS, RayHere
from mofa_gguf_ray import RayProvider

pytestmark = pytest.mark.ray

N_LINES, N_KILLS = 500, 3
MAIN = "import sys; from mofa_gguf.cli.main import main; sys.exit(main())"
COMMAND = (sys.executable, "-c", MAIN, "batch", "in.jsonl", "-o", "out.jsonl")

# They try for a minute to tell a Ray that is gone of its end, and are not waited for.
HELPERS = {"ray::DashboardAgent", "ray::RuntimeEnvAgent"}

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


def test_a_killed_batch_leaves_none_of_its_own_ray_behind_and_is_gone_on_with(
    ray_environment: Path, tmp_path: Path
) -> None:
    lines = [
        {"custom_id": f"q{n}", "prompt": f"What is {n} + 2?", "max_tokens": 4} for n in range(60)
    ]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    output = tmp_path / "out.jsonl"
    own = (*COMMAND, "-m", "demo", "--n-ctx", "512", "--parallel", "4", "--ray")
    environment = {**os.environ, "MOFA_GGUF_CACHE_DIR": str(tmp_path), "MOFA_GGUF_N_THREADS": "1"}
    begun: list[psutil.Process] = []
    try:
        with subprocess.Popen(own, cwd=tmp_path, env=environment) as child:
            try:
                wait_for_lines(output, random.randint(1, 30), child)
                begun = psutil.Process(child.pid).children(recursive=True)
                working = [process for process in begun if process.name() not in HELPERS]
            finally:
                child.kill()
        assert len(working) > 3  # Ray's own, and a replica
        assert psutil.wait_procs(working, timeout=30)[1] == []
    finally:
        for process in begun:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
    n_before = output.read_bytes().count(b"\n")
    assert 0 < n_before < len(lines)
    with subprocess.Popen(own, cwd=tmp_path, env=environment) as child:
        assert child.wait(120) == 0
    answers = [json.loads(line) for line in output.read_text().splitlines()]
    assert sorted(each["custom_id"] for each in answers) == sorted(e["custom_id"] for e in lines)
    assert not any(each["error"] for each in answers)


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

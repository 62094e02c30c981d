"""Under a real memory limit of a control group a model is refused or fitted, never killed for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools.bench.model import Shape, write_model

MIB = 2**20
ROOTS = {
    Path("/sys/fs/cgroup/memory"): ("memory.limit_in_bytes", "memory.oom_control"),
    Path("/sys/fs/cgroup"): ("memory.max", "memory.events"),
}
PROGRAM = """
import asyncio, json, sys
from pathlib import Path

given = json.loads(sys.argv[1])
Path(given["procs"]).write_text("0")
from mofa_gguf import ChatCompletionRequest, GGUFConfig, GGUFProvider
from mofa_gguf.contract import LLMError

async def main():
    provider = GGUFProvider(GGUFConfig(model=given["model"], n_ctx=given["n_ctx"], n_threads=1))
    hello = [{"role": "user", "content": "hi"}]
    said = ChatCompletionRequest(model="", messages=hello, max_tokens=4)
    try:
        await provider.chat(said)
        return {"n_cells": provider.stats().n_cells}
    except LLMError as error:
        return {"error": type(error).__name__, "message": str(error)}
    finally:
        await provider.close()

print(json.dumps(asyncio.run(main())))
"""


@pytest.fixture
def group() -> Iterator[tuple[Path, str, str]]:
    """A control group of its own: its folder, and the names of its limit and of its kills."""
    for root, (limit, kills) in ROOTS.items():
        folder = root / f"mofa-gguf-test-{os.getpid()}"
        try:
            folder.mkdir()
        except OSError:
            continue
        try:
            if (folder / limit).exists():
                yield folder, limit, kills
                return
        finally:
            folder.rmdir()
    pytest.skip("no control group with a memory limit can be made here")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """55 million parameters: about 30 MiB of weights, and 96 MiB for a context of 4,096."""
    shape = Shape(12, 512, 8, 4, 2048, 16_000)
    return write_model(tmp_path_factory.mktemp("limited") / "55m.gguf", shape)


@pytest.mark.parametrize(
    ("n_mib", "n_ctx", "expected"),
    [(80, "auto", "refused"), (180, "auto", "fitted"), (180, 8192, "refused"), (700, 8192, 8192)],
)
def test_a_model_is_refused_or_fitted(
    group: tuple[Path, str, str], model: Path, n_mib: int, n_ctx: str | int, expected: str | int
) -> None:
    folder, limit, kills = group
    (folder / limit).write_text(str(n_mib * MIB))
    given = {"procs": str(folder / "cgroup.procs"), "model": str(model), "n_ctx": n_ctx}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(given)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    counts = dict(line.split() for line in (folder / kills).read_text().splitlines())
    assert counts["oom_kill"] == "0"
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    if expected == "refused":
        assert said["error"] == "QuotaExceeded"
        assert f"the control group's memory limit of {n_mib} MiB" in said["message"]
    elif expected == "fitted":
        assert 256 <= said["n_cells"] < 8192
    else:
        assert said["n_cells"] == expected

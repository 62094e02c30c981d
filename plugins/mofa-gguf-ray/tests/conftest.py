"""One Ray for the whole run, begun by whoever needs it first, and a deployment of two replicas."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from mofa_gguf_ray import RayConfig, RayProvider

pytest_plugins = ["two_hosts"]

_STARTS_WITHIN_S = 120.0

OPTIONS = {"model": "demo", "n_ctx": 1024, "n_threads": 1, "max_parallel": 8, "max_queue": 16}
"""What all replicas of these tests have in common."""


@dataclass(frozen=True)
class RayHere:
    """A Ray on this machine, with more cores than there are: replicas must not wait for room."""

    address: str
    cache_dir: Path

    def config(self, **options: object) -> RayConfig:
        """A provider's options on it."""
        return RayConfig(
            **{
                "cache_dir": self.cache_dir,
                "ray_address": self.address,
                "cpus": 1,
                "start_timeout_s": 120,
                **OPTIONS,
                **options,
            }
        )


@pytest.fixture(scope="session")
def ray_environment() -> Iterator[Path]:
    """What Ray reads from the environment. Sockets' paths must be short."""
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
    wanted = {
        "RAY_TMPDIR": str(folder),
        "RAY_AUTH_MODE": "disabled",  # it listens on the loopback only
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",  # or tests starve on a busy machine
        "OMP_NUM_THREADS": "1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(("RAY_", "MOFA_GGUF_")):
                patch.delenv(name)
        for name, value in wanted.items():
            patch.setenv(name, value)
        yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def here(ray_environment: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayHere]:
    """The Ray of these tests, in processes of its own."""
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"]
    options = {
        "node-ip-address": "127.0.0.1",
        "port": 0,
        "num-cpus": 16,
        "num-gpus": 1,  # which nothing computes on
        "include-dashboard": "false",
        "object-store-memory": 100 * 2**20,
        "temp-dir": ray_environment,
    }
    command += [f"--{name}={value}" for name, value in options.items()]
    log = ray_environment / "start.log"
    with log.open("w") as output:
        head = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        yield RayHere(_address_of(head, log), tmp_path_factory.mktemp("cache"))
    finally:
        _end(head)


def _end(head: subprocess.Popen[bytes]) -> None:
    """End a Ray at once; its own way takes half a minute."""
    processes = [psutil.Process(head.pid), *psutil.Process(head.pid).children(recursive=True)]
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    head.wait(10)
    psutil.wait_procs(processes, timeout=10)


def _address_of(head: subprocess.Popen[bytes], log: Path) -> str:
    deadline_s = time.monotonic() + _STARTS_WITHIN_S
    while time.monotonic() < deadline_s and head.poll() is None:
        found = re.search(r"--address='([^']+)'", log.read_text())
        if found is not None:
            return found[1]
        time.sleep(0.1)
    raise AssertionError(f"Ray did not start:\n{log.read_text()}")


@pytest.fixture(scope="session")
def provider(here: RayHere) -> Iterator[RayProvider]:
    """Two replicas, which other programs may join as "shared"."""
    made = RayProvider(here.config(replicas=2, deployment="shared", lost_after_s=3))
    asyncio.run(made.load())
    yield made
    asyncio.run(made.close())

"""A Ray cluster on two hosts: a replica on each, one of them cut off, and back again.

The cluster is begun with the commands of docs/operations.md. Left out unless asked for
(``pytest -m hosts``): it takes about a minute, or several where the machine is busy.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from two_hosts import Host, TwoHosts

pytestmark = pytest.mark.hosts

PROGRAM = Path(__file__).with_name("asks_on_two_hosts.py")
PORT = 6379
SMALL = ("--num-cpus=1", f"--object-store-memory={80 * 2**20}")
QUICK = {
    # A host that does not answer is given up after seconds, not half a minute.
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "10",
}
ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if not name.startswith("MOFA_")},
    **QUICK,
    "RAY_AUTH_MODE": "disabled",  # else it depends on files in the user's folder
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",
    "OMP_NUM_THREADS": "1",
}


@pytest.fixture
def temporary() -> Iterator[str]:
    """A folder for Ray: paths of sockets must be short."""
    folder = tempfile.mkdtemp(prefix="ray", dir="/tmp")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def commands_of_the_page() -> dict[str, list[str]]:
    """What docs/operations.md runs on ``desk`` and on ``rack``, without the addresses there."""
    page = (Path(__file__).parents[3] / "docs" / "operations.md").read_text("utf-8")
    found = re.findall(r"^(desk|rack)\$ ray (start .*)$", page, flags=re.M)
    assert [host for host, _ in found] == ["desk", "rack"]
    return {host: options.split() for host, options in found}


def start_ray(hosts: TwoHosts, which: str, *options: str) -> None:
    """Run the page's command on a host, with what a small machine needs besides."""
    host = hosts.a if which == "desk" else hosts.b
    command = commands_of_the_page()[which]
    addresses = {"10.0.0.1": hosts.a.address, "10.0.0.2": hosts.b.address}
    for told, here in addresses.items():
        command = [each.replace(told, here) for each in command]
    ray = Path(sys.executable).with_name("ray")
    done = host.run(ray, *command, *SMALL, *options, env=ENVIRONMENT, timeout_s=240)
    assert done.returncode == 0, done.stdout + done.stderr


class Program:
    """The agent's program on a host, which says what happens line by line."""

    def __init__(self, host: Host, address: str, errors: Path) -> None:
        self._errors = errors
        with errors.open("w") as file:
            self._process = host.start(
                *(sys.executable, PROGRAM, address),
                env=ENVIRONMENT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
            )

    def says(self, step: str, *, within_s: float = 240) -> dict[str, Any]:
        """The facts of the next step, which is ``step``."""
        watch = threading.Timer(within_s, self._process.kill)
        watch.start()
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with contextlib.suppress(ValueError):  # Ray prints there, too
                told: dict[str, Any] = json.loads(line)
                watch.cancel()
                print(told)  # shown by -rP, or where the test fails
                assert told["step"] == step, told
                return told
        watch.cancel()
        raise AssertionError(f"it did not come to {step!r}:\n{self._errors.read_text()[-3000:]}")

    def goes_on(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def ends(self) -> int:
        return self._process.wait(30)


def test_work_on_two_hosts_survives_the_loss_of_one_which_comes_back(
    two_hosts: TwoHosts, temporary: str, tmp_path: Path
) -> None:
    a, b = two_hosts.a, two_hosts.b
    address = f"{a.address}:{PORT}"
    start_ray(two_hosts, "desk", "--include-dashboard=false", f"--temp-dir={temporary}")
    start_ray(two_hosts, "rack")
    program = Program(a, address, tmp_path / "errors.txt")
    assert program.says("alone")["n_different"] == 32

    answered = program.says("answered")
    assert answered["right"]
    assert answered["work"] == {a.address: 8, b.address: 8}

    program.says("streaming")
    b.cut_off()
    program.goes_on()
    cut, without = program.says("cut off"), program.says("cut off without retries")
    assert cut["seconds"] < 60
    for outcome in (cut, without):
        assert set(outcome["streams"]) == {"ReplicaLost", "whole"}
        assert sum(outcome["streams"].values()) == 12
        assert outcome["wrong"] == outcome["wrong_begun"] == []
    assert cut["chats"] == {"whole": 4}  # sent again to the replica that is left
    assert set(without["chats"]) == {"ReplicaLost", "whole"}
    assert sum(without["chats"].values()) == 4
    late = program.says("asked just after")
    assert late["right"]
    assert late["seconds"] < 90
    assert program.says("one left")["right"]

    program.says("dead")
    b.reconnect()
    start_ray(two_hosts, "rack")
    program.goes_on()
    back = program.says("back")
    assert back["right"]
    assert all(back["work"][host.address] > back["before"][host.address] for host in (a, b))
    program.says("closed")
    assert program.ends() == 0
    assert "Traceback" not in (tmp_path / "errors.txt").read_text()

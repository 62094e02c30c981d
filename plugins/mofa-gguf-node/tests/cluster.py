"""A dora cluster on two hosts: a coordinator and a daemon on ``desk``, a daemon on ``rack``."""

from __future__ import annotations

import queue
import re
import subprocess
import threading
import time
from pathlib import Path

import psutil
from dataflows import dora_command, dora_environment
from two_hosts import Host, TwoHosts

_COORDINATOR_PORT = 6013
_LINE = re.compile(r"^\S+ +stdout +(?P<node>[\w-]+) on daemon `[\w-]+`: (?P<text>.*)$")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_START_S = 120.0


class Cluster:
    """Two machines of a cluster, and at most one dataflow on them.

    Args:
        hosts: the machines; the first one, ``desk``, has the coordinator and dora's commands.
        folder: for logs, and what dora leaves in its working folders.
        environment: beside the usual one, for the nodes.
    """

    def __init__(self, hosts: TwoHosts, folder: Path, environment: dict[str, str]) -> None:
        self.desk, self.rack = hosts.a, hosts.b
        self._folder = folder
        self._environment = dora_environment(**environment)
        self._dora = dora_command()
        self._flow: subprocess.Popen[str] | None = None
        self._listener: threading.Thread | None = None
        self._lines: queue.Queue[str] = queue.Queue()
        self.output = ""

    def up(self) -> None:
        """Start the coordinator and the daemons."""
        address = self.desk.address
        # Its state is not kept in a file: the one by default is the user's.
        options = ("--interface", address, "--store", "memory")
        self._start(self.desk, "coordinator", "coordinator", *options)
        self.desk.wait_for(_COORDINATOR_PORT, timeout_s=_START_S)
        for host, machine in ((self.desk, "desk"), (self.rack, "rack")):
            options = ("--coordinator-addr", address, "--machine-id", machine)
            self._start(host, machine, "daemon", *options)
        self._wait_for_daemons("desk", "rack")

    def start(self, file: Path) -> None:
        """Start a dataflow, and listen to what it prints."""
        self._flow = self.desk.start(
            *(self._dora, "start", file.name, "--coordinator-addr", self.desk.address, "--attach"),
            cwd=file.parent,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self._listener = threading.Thread(target=self._listen, args=(self._flow,), daemon=True)
        self._listener.start()

    def wait_for(self, node: str, start: str, *, timeout_s: float = 300) -> str:
        """The node's next line with this beginning, after those that were waited for before."""
        until = time.monotonic() + timeout_s
        while not self._is_silent() and time.monotonic() < until:
            try:
                line = self._lines.get(timeout=0.1)
            except queue.Empty:
                continue
            found = _LINE.match(line)
            if found and found["node"] == node and found["text"].startswith(start):
                return found["text"]
        raise AssertionError(f"{node} did not say {start!r}:\n{self.output}")

    def said(self, node: str) -> list[str]:
        """All lines that a node printed so far."""
        lines = [_LINE.match(line) for line in self.output.splitlines()]
        return [found["text"] for found in lines if found and found["node"] == node]

    def stop(self) -> None:
        """Stop the dataflow, as a user does."""
        self.desk.run(
            *(self._dora, "stop", "--all", "--coordinator-addr", self.desk.address),
            cwd=self._folder,
            env=self._environment,
            check=True,
        )

    def wait(self, timeout_s: float = 300) -> int:
        """Wait for the dataflow's end; dora's exit code."""
        assert self._flow is not None
        return self._flow.wait(timeout_s)

    def provider_process(self) -> psutil.Process:
        """The provider node, which runs on ``rack``."""
        for process in map(psutil.Process, self.rack.pids()):
            if any("mofa-gguf-provider" in word for word in process.cmdline()):
                return process
        raise AssertionError("there is no provider node")

    def log(self, name: str) -> str:
        """What the coordinator or a machine's daemon has logged."""
        return _COLOUR.sub("", (self._folder / name / "log").read_text())

    def _start(self, host: Host, name: str, what: str, *options: str) -> None:
        folder = self._folder / name
        folder.mkdir()
        with (folder / "log").open("w") as log:
            host.start(
                *(self._dora, what, *options),
                cwd=folder,
                env=self._environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def _wait_for_daemons(self, *machines: str) -> None:
        until = time.monotonic() + _START_S
        while not all(f"daemon {machine}-" in self.log("coordinator") for machine in machines):
            if time.monotonic() > until:
                logs = "\n".join(map(self.log, ("coordinator", *machines)))
                raise AssertionError(f"the daemons did not come up:\n{logs}")
            time.sleep(0.1)

    def _is_silent(self) -> bool:
        """Whether the dataflow has ended, and all that it printed was waited for."""
        return self._listener is not None and not self._listener.is_alive() and self._lines.empty()

    def _listen(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            plain = _COLOUR.sub("", line.rstrip("\n"))
            self.output += plain + "\n"
            self._lines.put(plain)

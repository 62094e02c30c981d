"""Two hosts on one machine, for tests that need a network between them.

Each host is a network namespace with a loopback of its own; a veth pair is the cable between them.
Nothing else can be reached from there, and every port is free. Files and the clock are shared.

The fixture ``two_hosts`` makes a pair for one test; ``joined_hosts()`` is the same as a context
manager, for a fixture of another scope. Both skip where namespaces may not be made (it takes Linux,
iproute2 and CAP_SYS_ADMIN). What runs on the hosts ends with them, daemons too, and what a killed
run left behind is removed by the next one.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

INTERFACE = "cable"
_NETWORK = "10.213.7"
_OURS = re.compile(r"^mofa-hosts\.(?P<pid>\d+)\.(?P<started>\d+)\.\d+\.[ab]\b")
_LISTENS = "0A"  # a socket's state in /proc/net/tcp
_END_S = 5.0
_numbers = itertools.count()


class NotAllowed(Exception):
    """Namespaces cannot be made here; the text says why."""


@dataclass
class Host:
    """A network namespace: its name for ``ip netns``, and its address for the other host."""

    name: str
    address: str
    _started: list[subprocess.Popen[str]] = field(default_factory=list, repr=False)

    def command(self, *command: str | Path) -> list[str]:
        """``command`` as it is run on this host."""
        return ["ip", "netns", "exec", self.name, *map(str, command)]

    def run(
        self, *command: str | Path, timeout_s: float = 60, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; ``options`` are those of ``subprocess.run``."""
        given = {"capture_output": True, "text": True, "timeout": timeout_s, **options}
        done: subprocess.CompletedProcess[str] = subprocess.run(self.command(*command), **given)
        return done

    def start(self, *command: str | Path, **options: Any) -> subprocess.Popen[str]:
        """Start a command, which ends with the host; ``options`` are those of ``Popen``."""
        given = {"stdin": subprocess.DEVNULL, "text": True, **options}
        process: subprocess.Popen[str] = subprocess.Popen(self.command(*command), **given)
        self._started.append(process)
        return process

    def cut_off(self) -> None:
        """Pull the cable: what is under way gets lost, and nobody is told."""
        _ip("-n", self.name, "link", "set", INTERFACE, "down")

    def reconnect(self) -> None:
        """Put the cable back."""
        _ip("-n", self.name, "link", "set", INTERFACE, "up")

    def pids(self) -> list[int]:
        """Processes that run on this host."""
        return [int(line) for line in _ip("netns", "pids", self.name).split()]

    def listens(self, port: int) -> bool:
        """Whether something on this host listens on a TCP port; nothing is connected to it."""
        for pid in self.pids():
            with contextlib.suppress(OSError):  # it may end meanwhile
                tables = [Path(f"/proc/{pid}/net/{kind}").read_text() for kind in ("tcp", "tcp6")]
                rows = [line.split() for table in tables for line in table.splitlines()[1:]]
                return any(
                    row[3] == _LISTENS and int(row[1].rpartition(":")[2], 16) == port
                    for row in rows
                )
        return False

    def wait_for(self, port: int, *, timeout_s: float = 30) -> None:
        """Return when something listens on ``port``. Raises TimeoutError."""
        until = time.monotonic() + timeout_s
        while not self.listens(port):
            if time.monotonic() > until:
                raise TimeoutError(f"nothing listens on port {port} after {timeout_s} s")
            time.sleep(0.05)

    def end(self) -> None:
        """End what runs here, kindly at first, and take the host away."""
        for kind in (signal.SIGTERM, signal.SIGKILL):
            until = time.monotonic() + _END_S
            self._send(kind)
            while (self._running() or self.pids()) and time.monotonic() < until:
                time.sleep(0.02)
        for process in self._started:
            process.wait(_END_S)
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe is not None:
                    pipe.close()
        _ip("netns", "delete", self.name)

    def _send(self, kind: signal.Signals) -> None:
        # One that was just started may still be on its way into the namespace.
        for pid in {*self.pids(), *(process.pid for process in self._running())}:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, kind)

    def _running(self) -> list[subprocess.Popen[str]]:
        return [process for process in self._started if process.poll() is None]


@dataclass(frozen=True)
class TwoHosts:
    """Two hosts with a cable between them."""

    a: Host
    b: Host


@contextlib.contextmanager
def joined_hosts() -> Iterator[TwoHosts]:
    """Two hosts that reach each other, for as long as the block runs; skips where not allowed."""
    try:
        hosts = _make()
    except NotAllowed as error:
        pytest.skip(f"no network namespaces here: {error}")
    try:
        yield hosts
    finally:
        with contextlib.ExitStack() as ends:  # the second one also when the first one fails
            ends.callback(hosts.a.end)
            ends.callback(hosts.b.end)


@pytest.fixture
def two_hosts() -> Iterator[TwoHosts]:
    """Two hosts for one test."""
    with joined_hosts() as hosts:
        yield hosts


def leftovers() -> list[str]:
    """Hosts whose test process is gone."""
    names = [line.split()[0] for line in _ip("netns", "list").splitlines() if line]
    found = [(name, _OURS.match(name)) for name in names]
    return [name for name, ours in found if ours and _start_of(ours["pid"]) != ours["started"]]


def _make() -> TwoHosts:
    if not Path("/proc/self/ns/net").exists():
        raise NotAllowed("they take Linux")
    for name in leftovers():
        with contextlib.suppress(NotAllowed):  # another run may be removing it, too
            Host(name, "").end()
    pid = str(os.getpid())
    pair = f"mofa-hosts.{pid}.{_start_of(pid)}.{next(_numbers)}"
    hosts = TwoHosts(Host(f"{pair}.a", f"{_NETWORK}.1"), Host(f"{pair}.b", f"{_NETWORK}.2"))
    made = []
    try:
        for host in (hosts.a, hosts.b):
            _ip("netns", "add", host.name)
            made.append(host)
        peer = ("peer", "name", INTERFACE, "netns", hosts.b.name)
        _ip("link", "add", INTERFACE, "netns", hosts.a.name, "type", "veth", *peer)
        for host in (hosts.a, hosts.b):
            _ip("-n", host.name, "address", "add", f"{host.address}/24", "dev", INTERFACE)
            for interface in ("lo", INTERFACE):
                _ip("-n", host.name, "link", "set", interface, "up")
    except BaseException:
        for host in made:
            host.end()
        raise
    return hosts


def _start_of(pid: str) -> str | None:
    """When a process started, in the kernel's ticks; None if there is none of that number."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return stat.rpartition(")")[2].split()[19]


def _ip(*arguments: str) -> str:
    try:
        done = subprocess.run(["ip", *arguments], capture_output=True, text=True, timeout=30)
    except FileNotFoundError:
        raise NotAllowed("the command ip (iproute2) is not installed") from None
    if done.returncode:
        raise NotAllowed(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout

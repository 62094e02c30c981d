"""The two hosts that other tests run on, themselves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import two_hosts as harness
from two_hosts import Host, TwoHosts

PORT = 7000
ECHO = f"""
import socket, sys
with socket.create_server((sys.argv[1], {PORT})) as listener:
    while True:
        link, _ = listener.accept()
        with link:
            link.sendall(link.recv(100))
"""
ASK = f"""
import socket, sys
with socket.create_connection((sys.argv[1], {PORT}), timeout=1) as link:
    link.sendall(b"hello")
    print(link.recv(100).decode())
"""


def serve(host: Host, address: str) -> subprocess.Popen[str]:
    process = host.start(sys.executable, "-c", ECHO, address)
    host.wait_for(PORT)
    return process


def ask(host: Host, address: str) -> str:
    done = host.run(sys.executable, "-c", ASK, address)
    return done.stdout.strip() if done.returncode == 0 else done.stderr.splitlines()[-1]


def gone(*pids: int) -> bool:
    """Whether processes are gone, as soon as whoever inherited them has asked for them."""
    until = time.monotonic() + 5
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < until:
        time.sleep(0.02)
    return not any(Path(f"/proc/{pid}").exists() for pid in pids)


def names() -> str:
    return subprocess.run(["ip", "netns", "list"], capture_output=True, text=True).stdout


def test_hosts_reach_each_other_and_have_a_loopback_each(two_hosts: TwoHosts) -> None:
    a, b = two_hosts.a, two_hosts.b
    serve(b, b.address)
    assert ask(a, b.address) == "hello"
    assert ask(b, b.address) == "hello"
    assert "refused" in ask(a, "127.0.0.1")
    serve(a, "127.0.0.1")
    assert ask(a, "127.0.0.1") == "hello"
    assert "refused" in ask(b, a.address)


def test_nothing_else_is_reached_from_a_host(two_hosts: TwoHosts) -> None:
    assert "unreachable" in ask(two_hosts.a, "192.0.2.1")


def test_a_host_that_was_cut_off_comes_back(two_hosts: TwoHosts) -> None:
    a, b = two_hosts.a, two_hosts.b
    serve(b, b.address)
    b.cut_off()
    assert any(word in ask(a, b.address) for word in ("timed out", "No route"))
    assert ask(b, "127.0.0.1") != "hello"  # it listens on the cable's address
    b.reconnect()
    assert ask(a, b.address) == "hello"
    a.cut_off()
    assert "unreachable" in ask(a, b.address)
    a.reconnect()
    assert ask(a, b.address) == "hello"


STUBBORN = (
    "import signal, time; signal.signal(15, signal.SIG_IGN); print(flush=True); time.sleep(60)"
)


def test_what_runs_on_the_hosts_ends_with_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "_END_S", 1)
    with harness.joined_hosts() as hosts:
        process = serve(hosts.a, "127.0.0.1")
        stubborn = hosts.b.start(sys.executable, "-c", STUBBORN, stdout=subprocess.PIPE)
        assert stubborn.stdout is not None
        stubborn.stdout.readline()
        hosts.b.run("sh", "-c", "sleep 60 >/dev/null 2>&1 &")  # a daemon: no child of ours
        pids = [*hosts.a.pids(), *hosts.b.pids()]
        assert len(pids) == 3
    assert (process.poll(), stubborn.poll()) == (-signal.SIGTERM, -signal.SIGKILL)
    assert gone(*pids)
    assert hosts.a.name not in names()
    assert hosts.b.name not in names()


def test_a_port_that_nobody_opens_is_not_waited_for_without_end(two_hosts: TwoHosts) -> None:
    with pytest.raises(TimeoutError, match="port 7000"):
        two_hosts.a.wait_for(PORT, timeout_s=0.1)


CRASH = """
import os, sys, two_hosts
with two_hosts.joined_hosts() as hosts:
    hosts.a.start("sleep", "60", stdout=-3)
    while not hosts.a.pids():
        pass
    print(hosts.a.name, hosts.b.name, flush=True)
    os.kill(os.getpid(), 9)
"""


def test_what_a_killed_run_left_is_removed_and_nobody_elses(two_hosts: TwoHosts) -> None:
    folder = str(Path(harness.__file__).parent)
    killed = subprocess.run(
        [sys.executable, "-c", CRASH],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": folder},
    )
    left = killed.stdout.split()
    assert set(left) <= set(harness.leftovers())
    (sleeper,) = Host(left[0], "").pids()
    with harness.joined_hosts():
        assert all(name not in names() for name in left)
        assert two_hosts.a.name in names()
    assert gone(sleeper)


@pytest.mark.parametrize("missing", ["ip", "right"])
def test_where_hosts_are_not_allowed_the_reason_is_named(
    missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    if missing == "right":
        program = tmp_path / "ip"
        program.write_text("#!/bin/sh\necho 'Operation not permitted' >&2\nexit 1\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/bin{os.pathsep}/usr/bin")
    expected = {"ip": "iproute2", "right": "Operation not permitted"}[missing]
    with pytest.raises(pytest.skip.Exception, match=expected), harness.joined_hosts():
        pass

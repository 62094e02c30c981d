"""Connections to workers: patient with a busy machine, done with one that is gone."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest
from two_hosts import Host, TwoHosts

from mofa_gguf.engine.machine import rpc_link
from mofa_gguf.engine.machine.rpc_link import WorkerLink, keep_alive, keep_clients_alive
from tests.conftest import REPOSITORY


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rpc_link, "SILENCE_S", 1)
    monkeypatch.setattr(rpc_link, "_CHECK_S", 0.1)


def connect(listener: socket.socket, timeout_s: float = 30) -> tuple[WorkerLink, socket.socket]:
    link = WorkerLink(listener.getsockname()[:2], timeout_s=timeout_s)
    return link, listener.accept()[0]


def test_what_is_sent_arrives_whole_in_both_directions(listener: socket.socket) -> None:
    link, worker = connect(listener)
    data = os.urandom(3_000_000)
    echo = threading.Thread(
        target=lambda: worker.sendall(worker.recv(len(data), socket.MSG_WAITALL))
    )
    echo.start()
    link.send(data)
    assert link.receive(len(data)) == data
    echo.join()
    worker.close()
    with pytest.raises(ConnectionError):
        link.receive(1)
    link.close()


def test_a_worker_that_computes_is_waited_for_even_where_it_reads_nothing(
    listener: socket.socket, quick: None
) -> None:
    link, worker = connect(listener)
    link.be_patient()
    data = bytes(20_000_000)  # more than both ends keep
    read: list[int] = []

    def read_late() -> None:
        time.sleep(2.5)
        read.append(len(worker.recv(len(data), socket.MSG_WAITALL)))
        time.sleep(1.5)
        worker.sendall(b"done")

    worker_thread = threading.Thread(target=read_late)
    worker_thread.start()
    link.send(data)
    assert link.receive(4) == b"done"
    worker_thread.join()
    assert read == [len(data)]
    link.close()
    worker.close()


def test_a_worker_must_begin_in_time(listener: socket.socket, quick: None) -> None:
    link, worker = connect(listener, timeout_s=0.3)
    with pytest.raises(TimeoutError, match="does not answer"):
        link.receive(1)
    link.be_patient()
    threading.Timer(0.5, worker.sendall, (b"x",)).start()
    assert link.receive(1) == b"x"
    link.close()
    worker.close()


def test_a_connection_that_ended_is_seen_without_asking(
    listener: socket.socket, quick: None
) -> None:
    link, worker = connect(listener)
    assert not link.is_broken()
    worker.sendall(b"x")
    assert not link.is_broken()
    assert link.receive(1) == b"x"
    assert not link.is_broken()
    worker.close()
    until = time.monotonic() + 5
    while not link.is_broken() and time.monotonic() < until:
        time.sleep(0.005)
    assert link.is_broken()
    link.close()
    assert link.is_broken()


@pytest.mark.parametrize(
    ("retransmits", "probes", "heard_s", "silent"),
    [
        (0, 0, 500, False),  # nothing was asked
        (1, 0, 500, False),  # one thing got lost, perhaps
        (5, 0, 10, False),  # a short interruption
        (6, 0, 21, True),
        (0, 2, 21, True),
    ],
)
def test_a_machine_is_gone_when_it_confirms_nothing_for_long(
    retransmits: int, probes: int, heard_s: int, silent: bool
) -> None:
    info = struct.pack("=8B48xI", 1, 0, retransmits, probes, 0, 0, 0, 0, heard_s * 1000)
    assert rpc_link.is_silent(info) is silent


def test_clients_of_a_listener_that_is_not_ours_are_kept_alive(listener: socket.socket) -> None:
    address = listener.getsockname()[:2]
    early = socket.create_connection(address)
    accepted = [listener.accept()[0]]
    assert keep_clients_alive(address)
    late = socket.create_connection(address)
    accepted.append(listener.accept()[0])
    for end in accepted:
        assert end.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            limit_ms = end.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
            assert limit_ms == rpc_link.SILENCE_S * 1000
    for end in (early, late, *accepted):
        end.close()
    listener.close()
    assert not keep_clients_alive(address, timeout_s=0.1)


def test_keepalive_gives_up_when_the_silence_is_over(listener: socket.socket) -> None:
    with socket.create_connection(listener.getsockname()) as end:
        keep_alive(end)
        if not hasattr(socket, "TCP_KEEPIDLE"):
            pytest.skip("this system has no TCP_KEEPIDLE")
        idle, interval, count = (
            end.getsockopt(socket.IPPROTO_TCP, option)
            for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        )
        assert idle + interval * count == rpc_link.SILENCE_S


WORKER = """
import socket, sys
from mofa_gguf.engine.machine import rpc_link
rpc_link.SILENCE_S = 2
with socket.create_server((sys.argv[1], 7000)) as listener:
    rpc_link.keep_clients_alive((sys.argv[1], 7000))
    print("listening", flush=True)
    end, _ = listener.accept()
    end.sendall(end.recv(5))
    try:
        print("got", end.recv(5), flush=True)
    except OSError as error:
        print("gone", error, flush=True)
"""
CLIENT = """
import sys, time
from mofa_gguf.engine.machine import rpc_link
rpc_link.SILENCE_S = 2
link = rpc_link.WorkerLink((sys.argv[1], 7000), timeout_s=20)
link.be_patient()
link.send(b"hello")
link.receive(5)
print("connected", flush=True)
sys.stdin.readline()
began = time.monotonic()
try:
    if sys.argv[2] == "asks":
        link.send(b"again")
    link.receive(5)
except OSError as error:
    print("gone", error, flush=True)
print(time.monotonic() - began, flush=True)
"""


class Told:
    """Python code that runs on a host, line by line."""

    def __init__(self, host: Host, code: str, *arguments: str) -> None:
        command = (sys.executable, "-c", code, *arguments)
        pipes = {"stdout": subprocess.PIPE, "stdin": subprocess.PIPE}
        self._process = host.start(*command, cwd=REPOSITORY, **pipes)

    def line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def go_on(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()


@pytest.mark.parametrize("client", ["asks", "waits"])
@pytest.mark.parametrize("cut", ["a", "b"])
def test_both_ends_notice_that_the_other_machine_is_gone(
    two_hosts: TwoHosts, cut: str, client: str
) -> None:
    address = two_hosts.b.address
    worker = Told(two_hosts.b, WORKER, address)
    assert worker.line() == "listening"
    asker = Told(two_hosts.a, CLIENT, address, client)
    assert asker.line() == "connected"
    getattr(two_hosts, cut).cut_off()
    asker.go_on()
    assert asker.line().startswith("gone")
    assert float(asker.line()) < 20
    assert worker.line().startswith("gone")

"""Workers: what stands between llama.cpp and them, with fakes; and real ones, where the build is.

MOFA_GGUF_TEST_RPC_LIBRARIES names a folder made by tools/build_rpc.py.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mofa_gguf.engine.errors import DeviceUnavailable, InvalidOption
from mofa_gguf.engine.machine import rpc
from mofa_gguf.engine.machine.rpc_guard import Guard
from mofa_gguf.engine.machine.rpc_protocol import (
    ALLOC_BUFFER,
    DEVICE_COUNT,
    GET_DEVICE_MEMORY,
    GET_TENSOR,
    HEADER,
    HELLO,
    LENGTH,
    WorkerGone,
    answer_size,
    ask_devices,
    receive,
    stand_in,
)

SET_TENSOR = 6
REPOSITORY = Path(__file__).resolve().parents[3]
LIBRARIES = os.environ.get("MOFA_GGUF_TEST_RPC_LIBRARIES", "")


class FakeWorker:
    """Speaks ggml's protocol: two devices, tensors of 7s. Remembers what it was sent."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = self.listener.getsockname()[:2]
        self.commands: list[int] = []
        self.payloads: list[bytes] = []
        self.version = 7
        self.silent = False
        self.dies_after: int | None = None
        """Bytes of a tensor after which the connection breaks."""
        self.links: list[socket.socket] = []
        threading.Thread(target=self._listen, daemon=True).start()

    @property
    def server(self) -> str:
        return f"{self.address[0]}:{self.address[1]}"

    def stop(self) -> None:
        """Go away: the listener and every connection."""
        for end in (self.listener, *self.links):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _listen(self) -> None:
        while True:
            try:
                link, _ = self.listener.accept()
            except OSError:
                return
            self.links.append(link)
            threading.Thread(target=self._serve, args=(link,), daemon=True).start()

    def _serve(self, link: socket.socket) -> None:
        try:
            while True:
                command, n_bytes = HEADER.unpack(receive(link, HEADER.size))
                payload = receive(link, n_bytes)
                self.commands.append(command)
                self.payloads.append(payload)
                answer = None if self.silent else self._answer(command, payload)
                if answer is None:
                    continue
                data = LENGTH.pack(len(answer)) + answer
                if command == GET_TENSOR and self.dies_after is not None:
                    link.sendall(data[: LENGTH.size + self.dies_after])
                    self.stop()
                    return
                link.sendall(data)
        except OSError:
            return

    def _answer(self, command: int, payload: bytes) -> bytes | None:
        if command == HELLO:
            return bytes([self.version]) + bytes(27)
        if command == DEVICE_COUNT:
            return struct.pack("<I", 2)
        if command == GET_DEVICE_MEMORY:
            (number,) = struct.unpack("<I", payload)
            return struct.pack("<QQ", 1000 + number, 2000 + number)
        if command == GET_TENSOR:
            size = answer_size(command, payload)
            assert size is not None
            return b"\7" * size
        if command == ALLOC_BUFFER:
            return struct.pack("<QQ", 42, 99)
        return None


@pytest.fixture
def worker() -> Iterator[FakeWorker]:
    made = FakeWorker()
    yield made
    made.stop()


@pytest.fixture
def guard(worker: FakeWorker) -> Iterator[Guard]:
    made = Guard(worker.server, worker.address)
    yield made
    made.close()


class Client:
    """The requests that llama.cpp would send through a guard."""

    def __init__(self, guard: Guard) -> None:
        host, _, port = guard.endpoint.rpartition(":")
        self.link = socket.create_connection((host, int(port)), timeout=10)
        assert self.ask(HELLO, b"\1" * 24)[0] == 7

    def send(self, command: int, payload: bytes) -> None:
        self.link.sendall(HEADER.pack(command, len(payload)) + payload)

    def ask(self, command: int, payload: bytes = b"") -> bytes:
        self.send(command, payload)
        (size,) = LENGTH.unpack(receive(self.link, LENGTH.size))
        return receive(self.link, size)

    def tensor(self, n_bytes: int) -> bytes:
        return self.ask(GET_TENSOR, bytes(296) + struct.pack("<QQ", 0, n_bytes))


@pytest.fixture
def client(guard: Guard) -> Iterator[Client]:
    made = Client(guard)
    yield made
    made.link.close()


def eventually(condition: Callable[[], bool]) -> bool:
    until = time.monotonic() + 5
    while not condition() and time.monotonic() < until:
        time.sleep(0.005)
    return condition()


def test_a_guard_hands_on_what_both_say(worker: FakeWorker, guard: Guard, client: Client) -> None:
    assert client.ask(DEVICE_COUNT) == struct.pack("<I", 2)
    weights = os.urandom(3_000_000)
    client.send(SET_TENSOR, weights)
    assert client.tensor(2_500_000) == b"\7" * 2_500_000
    assert worker.commands == [HELLO, DEVICE_COUNT, SET_TENSOR, GET_TENSOR]
    assert worker.payloads[2] == weights
    assert guard.busy
    assert not guard.lost
    client.link.close()
    assert eventually(lambda: not guard.busy)
    assert not guard.lost


def test_other_transports_are_not_offered(worker: FakeWorker, client: Client) -> None:
    assert worker.payloads[0] == bytes(24)


@pytest.mark.parametrize("after", [0, 1, 100_000])
def test_an_answer_that_breaks_off_is_filled_up(
    worker: FakeWorker, guard: Guard, client: Client, after: int
) -> None:
    worker.dies_after = after
    data = client.tensor(1_500_000)
    assert data == b"\7" * after + bytes(1_500_000 - after)
    assert guard.lost
    # llama.cpp goes on as if nothing had happened, until the engine asks.
    client.send(SET_TENSOR, bytes(2_000_000))
    assert client.tensor(50) == bytes(50)
    assert client.ask(ALLOC_BUFFER, bytes(12)) == bytes(16)
    assert client.ask(GET_DEVICE_MEMORY, bytes(4)) == bytes(16)


def test_a_worker_that_went_away_meanwhile_is_seen_without_asking_it(
    worker: FakeWorker, guard: Guard, client: Client
) -> None:
    assert client.ask(DEVICE_COUNT) == struct.pack("<I", 2)
    assert not guard.look()
    worker.stop()
    assert eventually(guard.look)
    assert guard.lost
    assert client.ask(DEVICE_COUNT) == bytes(4)


def test_an_answer_of_the_wrong_length_counts_as_lost(
    worker: FakeWorker, guard: Guard, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "_answer", lambda _command, _payload: b"too short")
    assert client.tensor(64) == bytes(64)
    assert guard.lost


def test_a_guard_without_a_worker_answers_for_it(worker: FakeWorker) -> None:
    worker.stop()
    guard = Guard(worker.server, worker.address)
    client = Client(guard)
    assert client.ask(DEVICE_COUNT) == bytes(4)
    assert guard.lost
    client.link.close()
    guard.close()
    guard.close()


def test_every_answer_made_up_has_the_length_that_belongs() -> None:
    payload = bytes(296) + struct.pack("<QQ", 0, 77)
    sizes = {command: answer_size(command, payload) for command in range(18)}
    assert {command: size for command, size in sizes.items() if size is not None} == {
        0: 16, 1: 8, 2: 8, 3: 8, 7: 1, 8: 77, 9: 1, 11: 16, 13: 8, 14: 28, 15: 4,
    }  # fmt: skip
    for command, size in sizes.items():
        if size is not None:
            assert len(stand_in(command, size)) == size


def test_a_worker_tells_its_devices(worker: FakeWorker) -> None:
    found = ask_devices(worker.address, timeout_s=5)
    assert [(each.free_bytes, each.total_bytes) for each in found] == [(1000, 2000), (1001, 2001)]


def test_a_worker_that_cannot_be_used_says_why(worker: FakeWorker) -> None:
    worker.version = 6
    with pytest.raises(WorkerGone, match="version 6"):
        ask_devices(worker.address, timeout_s=5)
    worker.silent = True
    with pytest.raises(WorkerGone, match="busy"):
        ask_devices(worker.address, timeout_s=0.1)
    worker.stop()
    with pytest.raises(WorkerGone, match="cannot be reached"):
        ask_devices(worker.address, timeout_s=5)


@pytest.mark.parametrize("server", ["", "host", "host:", ":1", "host:x", "host:0", "host:65536"])
def test_an_address_is_a_host_and_a_port(server: str) -> None:
    with pytest.raises(InvalidOption, match="host:port"):
        rpc.read_address(server)


@pytest.mark.parametrize(
    ("server", "address"),
    [("localhost:1", ("localhost", 1)), ("[::1]:50052", ("::1", 50052))],
)
def test_addresses_are_read(server: str, address: tuple[str, int]) -> None:
    assert rpc.read_address(server) == address


def test_a_worker_listens_to_this_machine_unless_told_otherwise() -> None:
    rpc.check_host("127.0.0.1", allow_public=False)
    rpc.check_host("localhost", allow_public=False)
    for host in ("0.0.0.0", "192.0.2.1", "::"):
        with pytest.raises(InvalidOption, match="--allow-public"):
            rpc.check_host(host, allow_public=False)
        rpc.check_host(host, allow_public=True)
    with pytest.raises(InvalidOption, match="no address"):
        rpc.check_host("no such host .", allow_public=False)


def test_a_build_without_the_backend_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rpc, "has_rpc", lambda: False)
    assert rpc.worker_devices([]) == []
    for use in (lambda: rpc.worker_devices(["127.0.0.1:1"]), lambda: rpc.serve("127.0.0.1", 1)):
        with pytest.raises(DeviceUnavailable, match=r"GGML_RPC=on.*LLAMA_CPP_LIB_PATH"):
            use()


def test_a_port_that_is_taken_is_an_error(
    worker: FakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rpc, "has_rpc", lambda: True)
    with pytest.raises(DeviceUnavailable, match="--port"):
        rpc.serve(*worker.address)


def test_a_worker_that_does_not_answer_is_left_out(
    worker: FakeWorker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(rpc, "has_rpc", lambda: True)
    worker.stop()
    monkeypatch.setattr(rpc, "_absent", set())
    for _ in range(3):
        assert rpc.worker_devices([worker.server]) == []
    said = f"the worker {worker.server} is not used"
    assert [said in record.getMessage() for record in caplog.records] == [True]


needs_rpc = pytest.mark.skipif(
    not Path(LIBRARIES, "libllama.so").is_file(),
    reason="no build with RPC: set MOFA_GGUF_TEST_RPC_LIBRARIES to a folder of tools/build_rpc.py",
)

ON_A_WORKER = """
import asyncio, json, os, subprocess, sys, time
from mofa_gguf import ChatCompletionRequest, GGUFConfig, GGUFProvider, LLMError

path, port = sys.argv[1], int(sys.argv[2])
command = [sys.executable, "-m", "mofa_gguf", "worker", "--port", str(port), "--threads", "1"]
worker = subprocess.Popen(command, stdout=subprocess.DEVNULL)
import socket
for _ in range(200):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
        break
    except OSError:
        time.sleep(0.05)

same = dict(
    model=path, n_ctx=2048, n_threads=1, cache_type_k="f32", cache_type_v="f32", flash_attn="off",
    speculation="off",
)
ask = ChatCompletionRequest.new().user_message("Tell me of it.").with_temperature(0)


async def text(provider, n):
    return (await provider.chat(ask.with_max_tokens(n))).content()


async def main():
    told = {}
    async with GGUFProvider(GGUFConfig(**same)) as provider:
        told["cpu"] = await text(provider, 32)
    config = GGUFConfig(**same, n_gpu_layers=3, rpc_servers=[f"127.0.0.1:{port}"])
    async with GGUFProvider(config) as provider:
        told["worker"] = await text(provider, 32)
        health = await provider.health()
        told["layers"], told["devices"] = health.n_gpu_layers, health.devices

        told["chunks"] = 0
        try:
            async for _chunk in provider.chat_stream(ask.with_max_tokens(900)):
                told["chunks"] += 1
                if told["chunks"] == 5:
                    worker.kill()
        except LLMError as error:
            told["error"] = [type(error).__name__, str(error)]
        told["after"] = await text(provider, 32)
        health = await provider.health()
        told["layers_after"] = health.n_gpu_layers
    print(json.dumps(told))


try:
    asyncio.run(main())
finally:
    worker.kill()
    worker.wait()
"""


@needs_rpc
def test_layers_on_a_worker_give_the_same_text_and_its_loss_is_survived(tmp_path: Path) -> None:
    from tests.support.tiny_gguf import TinyLlama, write_tiny_llama

    # With these weights it talks for a thousand tokens.
    shape = TinyLlama(n_layers=4, n_embd=128, n_ctx=2048, seed=1)
    path = write_tiny_llama(tmp_path / "m.gguf", shape)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {**os.environ, "LLAMA_CPP_LIB_PATH": LIBRARIES, "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [sys.executable, "-c", ON_A_WORKER, str(path), str(port)],
        capture_output=True,
        text=True,
        env=environment,
        cwd=REPOSITORY,
        timeout=120,
    )
    assert run.returncode == 0, (run.returncode, run.stderr[-3000:])
    told = json.loads(run.stdout)
    assert told["layers"] == 3
    assert told["devices"][0].startswith("RPC")
    assert told["worker"] == told["cpu"]
    assert len(told["cpu"]) > 10
    assert 5 <= told["chunks"] < 500
    assert "was lost" in told["error"][1]
    assert told["after"] == told["cpu"]
    assert told["layers_after"] == 0


EXPERTS_ON_A_WORKER = """
import json, logging, subprocess, sys, socket, time
from dataclasses import replace
from mofa_gguf.engine.machine import rpc
from mofa_gguf.engine.engine import Engine
from mofa_gguf.engine.options import EngineOptions
from mofa_gguf.engine.requests.request import FinishEvent, GenerationRequest, TextEvent
from mofa_gguf.engine.requests.sampling import SamplingOptions

path, port = sys.argv[1], int(sys.argv[2])
command = [sys.executable, "-m", "mofa_gguf", "worker", "--port", str(port), "--threads", "1"]
worker = subprocess.Popen(command, stdout=subprocess.DEVNULL)
for _ in range(200):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
        break
    except OSError:
        time.sleep(0.05)
whole = rpc.worker_devices


def little(servers):
    return [replace(each, free_bytes=int(sys.argv[3])) for each in whole(servers)]


class Lines(logging.Handler):
    lines = []

    def emit(self, record):
        self.lines.append(record.getMessage())


log = Lines()  # of every thread: models load on one of their own
logging.getLogger("mofa_gguf.llama_cpp").addHandler(log)
logging.getLogger("mofa_gguf.llama_cpp").setLevel(logging.DEBUG)


def answer(options):
    log.lines.clear()
    engine = Engine.load(path, options)
    request = GenerationRequest([1, 2, 3], SamplingOptions(temperature=0), max_tokens=24,
        ignore_eos=True)
    *events, _ = engine.submit(request)
    plan = engine.model.plan
    engine.close()
    moved = [line for line in log.lines if "buffer type overridden to CPU" in line]
    return [t for e in events if isinstance(e, TextEvent) for t in e.tokens], plan, len(moved)


try:
    options = EngineOptions(n_ctx=512, n_threads=1, cache_type_k="f32", cache_type_v="f32",
        flash_attn="off")
    alone, _, _ = answer(options)
    rpc.worker_devices = little
    both, plan, moved = answer(replace(options, rpc_servers=(f"127.0.0.1:{port}",)))
    print(json.dumps({"same": alone == both, "layers": plan.n_gpu_layers,
        "cpu_experts": plan.cpu_experts, "moved": moved}))
finally:
    worker.kill()
    worker.wait()
"""


@needs_rpc
def test_experts_kept_on_the_cpu_are_there_and_the_text_is_the_same(tmp_path: Path) -> None:
    from mofa_gguf.engine.files.header import read_header
    from mofa_gguf.engine.options import EngineOptions
    from mofa_gguf.engine.planning.facts import facts_of
    from mofa_gguf.engine.planning.fit import plan_load
    from tests.support.tiny_experts import write_tiny_experts

    path = write_tiny_experts(tmp_path / "experts.gguf")
    facts = facts_of(path)
    options = EngineOptions(
        n_ctx=512, n_threads=1, cache_type_k="f32", cache_type_v="f32", flash_attn="off"
    )
    host = plan_load(read_header(path), options).plan.host
    # Room for all of it but the experts of two layers, with a tenth that is kept free.
    experts = facts.layers[0].n_expert_bytes
    needed = host.weights + host.cache + host.compute - facts.n_input_bytes - experts * 3 // 2
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    run = subprocess.run(
        [sys.executable, "-c", EXPERTS_ON_A_WORKER, str(path), str(port), str(needed * 10 // 9)],
        capture_output=True,
        text=True,
        env={**os.environ, "LLAMA_CPP_LIB_PATH": LIBRARIES, "OMP_NUM_THREADS": "1"},
        cwd=REPOSITORY,
        timeout=120,
    )
    assert run.returncode == 0, (run.returncode, run.stderr[-3000:])
    told = json.loads(run.stdout)
    # Three tensors of two layers, in the dry load and in the real one.
    assert told == {"same": True, "layers": 4, "cpu_experts": [0, 1], "moved": 12}

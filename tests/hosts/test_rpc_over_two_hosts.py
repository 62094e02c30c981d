"""A model whose layers lie on two machines: one text, a machine that vanishes, and comes back.

MOFA_GGUF_TEST_RPC_LIBRARIES names a folder made by tools/build_rpc.py.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from two_hosts import Host, TwoHosts

from tests.conftest import REPOSITORY
from tests.support.tiny_gguf import TinyLlama, write_tiny_llama

LIBRARIES = os.environ.get("MOFA_GGUF_TEST_RPC_LIBRARIES", "")
PORT = 50052
ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if not name.startswith("MOFA_")},
    "LLAMA_CPP_LIB_PATH": LIBRARIES,
    "OMP_NUM_THREADS": "1",
}
# Machines are given up after 2 seconds of silence here, not 20, and looked for every second.
IMPATIENT = """
from mofa_gguf.engine.machine import rpc_absent, rpc_link
rpc_link.SILENCE_S, rpc_absent.EVERY_S = 2, 1
"""
WORKER = (
    IMPATIENT
    + """
import sys
from mofa_gguf.cli.main import main
sys.argv = ["mofa-gguf", "worker", *sys.argv[1:]]
main()
"""
)
PROGRAM = (
    IMPATIENT
    + """
import asyncio, json, sys, time
from mofa_gguf import ChatCompletionRequest, GGUFConfig, GGUFProvider, LLMError

path, server = sys.argv[1:]
same = dict(
    model=path, n_ctx=2048, n_threads=1, cache_type_k="f32", cache_type_v="f32", flash_attn="off",
    speculation="off",
)
ask = ChatCompletionRequest.new().user_message("Tell me of it.").with_temperature(0)
short, endless = ask.with_max_tokens(32), ask.with_options({"ignore_eos": True, "max_tokens": 1800})
since = time.monotonic()


def say(step, **facts):
    at_s = round(time.monotonic() - since, 1)
    print(json.dumps({"step": step, "at_s": at_s, **facts}), flush=True)


async def told():
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)


async def answer(provider):
    text = (await provider.chat(short)).content()
    health = await provider.health()
    return {"text": text, "layers": health.n_gpu_layers, "devices": health.devices}
"""
)
VANISHES = """
async def main():
    async with GGUFProvider(GGUFConfig(**same)) as provider:
        say("alone", **await answer(provider))
    config = GGUFConfig(**same, n_gpu_layers=3, rpc_servers=[server])
    async with GGUFProvider(config) as provider:
        say("both", **await answer(provider))
        n_pieces = 0
        began = None
        try:
            while True:
                async for _ in provider.chat_stream(endless):
                    n_pieces += 1
                    if began is None:
                        say("streaming")
                        await told()
                        began = time.monotonic()
        except LLMError as error:
            say("lost", kind=type(error).__name__, message=str(error), n_pieces=n_pieces,
                seconds=time.monotonic() - began)
        say("after", **await answer(provider))
        await told()
        while (told_now := await answer(provider))["layers"] == 0:
            assert told_now["text"], told_now
            await asyncio.sleep(0.5)
        say("back", **told_now)
    say("closed")


asyncio.run(main())
"""
RESTARTS = """
async def main():
    config = GGUFConfig(**same, n_gpu_layers=3, rpc_servers=[server])
    async with GGUFProvider(config) as provider:
        for step in ("first", "second", "alone"):
            say(step, **await answer(provider))
            await told()


asyncio.run(main())
"""

pytestmark = pytest.mark.skipif(
    not Path(LIBRARIES, "libllama.so").is_file(),
    reason="no build with RPC: set MOFA_GGUF_TEST_RPC_LIBRARIES to a folder of tools/build_rpc.py",
)


class Program:
    """The program above on a host, with what it does."""

    def __init__(self, host: Host, does: str, *arguments: str | Path) -> None:
        self._process = host.start(
            *(sys.executable, "-c", PROGRAM + does, *arguments),
            env=ENVIRONMENT,
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def says(self, step: str) -> dict[str, Any]:
        """The facts of the next step, which is ``step``."""
        watch = threading.Timer(100, self._process.kill)  # nothing may hang
        watch.start()
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        watch.cancel()
        assert line, f"it did not come to {step!r}"
        told: dict[str, Any] = json.loads(line)
        assert told.pop("step") == step, told
        return told

    def goes_on(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def ends(self) -> int:
        return self._process.wait(30)


def start_worker(host: Host) -> subprocess.Popen[str]:
    options = ("--host", host.address, "--allow-public", "--port", str(PORT), "--threads", "1")
    worker = host.start(
        *(sys.executable, "-c", WORKER, *options),
        env=ENVIRONMENT,
        cwd=REPOSITORY,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    host.wait_for(PORT, timeout_s=60)
    return worker


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_tiny_llama(tmp_path / "m.gguf", TinyLlama(n_layers=4, n_embd=128, n_ctx=2048))


@pytest.mark.parametrize("cut", ["worker", "provider"])
def test_layers_on_another_machine_whose_loss_is_survived_and_that_is_used_again(
    two_hosts: TwoHosts, model: Path, cut: str
) -> None:
    start_worker(two_hosts.b)
    program = Program(two_hosts.a, VANISHES, model, f"{two_hosts.b.address}:{PORT}")
    alone, both = program.says("alone"), program.says("both")
    assert both["layers"] == 3
    assert both["devices"][0].startswith("RPC")
    assert both["text"] == alone["text"]

    host = two_hosts.b if cut == "worker" else two_hosts.a
    program.says("streaming")
    host.cut_off()
    program.goes_on()
    lost = program.says("lost")
    assert "was lost" in lost["message"]
    assert lost["seconds"] < 60
    after = program.says("after")
    assert (after["text"], after["layers"]) == (alone["text"], 0)

    host.reconnect()
    program.goes_on()
    back = program.says("back")
    assert (back["text"], back["layers"]) == (alone["text"], 3)
    program.says("closed")
    assert program.ends() == 0


def test_a_worker_that_ends_or_begins_anew_while_nobody_asks_costs_no_request(
    two_hosts: TwoHosts, model: Path
) -> None:
    worker = start_worker(two_hosts.b)
    program = Program(two_hosts.a, RESTARTS, model, f"{two_hosts.b.address}:{PORT}")
    first = program.says("first")
    worker.kill()
    worker.wait()
    worker = start_worker(two_hosts.b)
    program.goes_on()
    second = program.says("second")
    assert (second["text"], first["layers"], second["layers"]) == (first["text"], 3, 3)
    worker.kill()
    worker.wait()
    program.goes_on()
    alone = program.says("alone")
    assert (alone["text"], alone["layers"]) == (first["text"], 0)
    program.goes_on()
    assert program.ends() == 0

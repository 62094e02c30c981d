"""A server that misbehaves on demand, a real one, and the model it serves."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from scripted_server import ScriptedServer, serve

import mofa_gguf

_STARTS_WITHIN_S = 60.0


@dataclass(frozen=True)
class RealServer:
    """llama-cpp-python's server with the demo model, in a process of its own."""

    base_url: str
    api_key: str
    model: str


@pytest.fixture(autouse=True)
def no_proxies_and_no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the machine's environment says of servers must not reach a test."""
    for name in list(os.environ):
        if name.upper().endswith("_PROXY") or name.startswith(("OPENAI_", "OLLAMA_")):
            monkeypatch.delenv(name)


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    """A server that says what a test tells it to."""
    with serve() as running:
        yield running


@pytest.fixture(scope="session")
def demo_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled checkpoint as a GGUF file."""
    source = Path(mofa_gguf.__file__).parent / "data" / "demo"
    output = tmp_path_factory.mktemp("models") / "demo.gguf"
    mofa_gguf.convert(source, output, "F16")
    return output


@pytest.fixture(scope="session")
def real_server(demo_model: Path) -> Iterator[RealServer]:
    """llama-cpp-python's own server."""
    pytest.importorskip("llama_cpp.server.app", reason="its server's requirements are missing")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    key = "sk-the-servers-secret"
    command = [sys.executable, "-m", "llama_cpp.server", "--model", str(demo_model)]
    options = {
        "host": "127.0.0.1",
        "port": port,
        "n_threads": 1,
        "n_ctx": 256,
        "model_alias": "demo",
        "api_key": key,
    }
    command += [word for name, value in options.items() for word in (f"--{name}", str(value))]
    log = demo_model.with_name("server.log")
    with log.open("w") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
    server = RealServer(f"http://127.0.0.1:{port}/v1", key, "demo")
    try:
        _wait_for(server, process, log)
        yield server
    finally:
        process.terminate()
        process.wait(10)


def _wait_for(server: RealServer, process: subprocess.Popen[bytes], log: Path) -> None:
    request = urllib.request.Request(
        f"{server.base_url}/models", headers={"Authorization": f"Bearer {server.api_key}"}
    )
    deadline = time.monotonic() + _STARTS_WITHIN_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(request, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise AssertionError(f"the server did not start:\n{log.read_text()}")

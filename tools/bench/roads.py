"""The contenders, each behind the same two calls: ``complete`` (thread-safe) and ``close``."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import psutil


@dataclass
class Outcome:
    """One answer: its tokens' count, seconds to the first of them, prompt tokens computed."""

    n_tokens: int
    first_token_s: float
    n_prompt_computed: int
    tokens: list[int]


class Road(Protocol):
    """A way to run the model."""

    name: str

    @property
    def n_bytes(self) -> int:
        """Resident memory of the process that holds the model."""

    def complete(self, tokens: Sequence[int], n_answer: int) -> Outcome:
        """Greedy, exactly ``n_answer`` tokens. May be called from several threads."""

    def close(self) -> None:
        """Give everything back."""


class Ours:
    """mofa_gguf's engine, in this process."""

    name = "mofa-gguf"

    def __init__(self, model: Path, *, n_ctx: int, n_parallel: int, n_threads: int) -> None:
        from mofa_gguf.engine.engine import Engine
        from mofa_gguf.engine.options import EngineOptions

        # Nothing guessed ahead: random weights repeat themselves, which would flatter it.
        options = EngineOptions(
            n_ctx=n_ctx, max_parallel=n_parallel, n_threads=n_threads, speculation="off"
        )
        self.engine = Engine.load(model, options)

    @property
    def n_bytes(self) -> int:
        return resident(os.getpid())

    def complete(self, tokens: Sequence[int], n_answer: int) -> Outcome:
        from mofa_gguf.engine.requests.request import GenerationRequest, TextEvent
        from mofa_gguf.engine.requests.sampling import SamplingOptions

        started = time.monotonic()
        request = GenerationRequest(
            tokens, SamplingOptions(temperature=0), max_tokens=n_answer, ignore_eos=True
        )
        first = 0.0
        answer: list[int] = []
        for event in self.engine.submit(request):
            first = first or time.monotonic() - started
            if isinstance(event, TextEvent):
                answer += event.tokens
            else:
                computed = event.n_prompt_tokens - event.n_cached_tokens
        return Outcome(len(answer), first, computed, answer)

    def close(self) -> None:
        self.engine.close()


class LockedLlama:
    """llama-cpp-python's Llama, which serves one at a time, behind a lock."""

    name = "Llama + lock"

    def __init__(self, model: Path, *, n_ctx: int, n_parallel: int, n_threads: int) -> None:
        from llama_cpp import Llama

        self._llama = Llama(
            str(model), n_ctx=n_ctx, n_threads=n_threads, n_threads_batch=n_threads, verbose=False
        )
        self._lock = threading.Lock()

    @property
    def n_bytes(self) -> int:
        return resident(os.getpid())

    def complete(self, tokens: Sequence[int], n_answer: int) -> Outcome:
        started = time.monotonic()
        first = 0.0
        answer: list[int] = []
        with self._lock:
            cached = list(self._llama._input_ids[: self._llama.n_tokens])
            n_shared = 0
            while n_shared < min(len(cached), len(tokens)) and cached[n_shared] == tokens[n_shared]:
                n_shared += 1
            for token in self._llama.generate(list(tokens), temp=0.0):
                first = first or time.monotonic() - started
                answer.append(int(token))
                if len(answer) == n_answer:
                    break
        return Outcome(len(answer), first, len(tokens) - n_shared, answer)

    def close(self) -> None:
        self._llama.close()


class Server:
    """llama.cpp's own server on loopback, with as many slots as there are agents."""

    usual_name = "llama-server"

    def __init__(
        self,
        model: Path,
        *,
        n_ctx: int,
        n_parallel: int,
        n_threads: int,
        binary: Path,
        name: str = "",
    ) -> None:
        self.name = name or self.usual_name
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        command = self._command(binary, model, n_ctx, n_parallel, n_threads)
        self._process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self._wait_until_ready()

    def _command(
        self, binary: Path, model: Path, n_ctx: int, n_parallel: int, n_threads: int
    ) -> list[str]:
        command = [str(binary), "-m", str(model), "-c", str(n_ctx), "-np", str(n_parallel)]
        return [*command, "-t", str(n_threads), "--host", "127.0.0.1", "--port", str(self._port)]

    @property
    def n_bytes(self) -> int:
        return resident(self._process.pid)

    def complete(self, tokens: Sequence[int], n_answer: int) -> Outcome:
        body = {
            "prompt": list(tokens),
            "n_predict": n_answer,
            "temperature": 0,
            "ignore_eos": True,
            "cache_prompt": True,
            "stream": True,
            "return_tokens": True,
        }
        request = urllib.request.Request(
            f"http://127.0.0.1:{self._port}/completion",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        started = time.monotonic()
        first = 0.0
        answer: list[int] = []
        computed = 0
        with urllib.request.urlopen(request) as response:
            for line in response:
                if not line.startswith(b"data: "):
                    continue
                first = first or time.monotonic() - started
                news = json.loads(line[6:])
                answer += news.get("tokens", [])
                computed = news.get("timings", {}).get("prompt_n", computed)
        return Outcome(len(answer), first, computed, answer)

    def close(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _wait_until_ready(self) -> None:
        for _ in range(600):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/health") as answer:
                    if answer.status == 200:
                        return
            except OSError:
                pass
            time.sleep(0.1)
        raise RuntimeError("llama-server did not come up")


_XLLAMACPP = """
import signal, sys
import xllamacpp
model, port, n_ctx, n_parallel, n_threads = sys.argv[1:]
params = xllamacpp.CommonParams()
params.model.path, params.port = model, int(port)
params.n_ctx, params.n_parallel = int(n_ctx), int(n_parallel)
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = int(n_threads)
server = xllamacpp.Server(params)
signal.pause()
"""


class XLlamaCpp(Server):
    """xllamacpp: llama.cpp's server inside a Python process, here reached at its loopback port.

    ``binary`` is a Python that has it installed: its wheel comes with a llama.cpp of its own.
    """

    usual_name = "xllamacpp"

    def _command(
        self, binary: Path, model: Path, n_ctx: int, n_parallel: int, n_threads: int
    ) -> list[str]:
        numbers = map(str, (self._port, n_ctx, n_parallel, n_threads))
        return [str(binary), "-c", _XLLAMACPP, str(model), *numbers]


def resident(pid: int) -> int:
    """Resident memory of a process, in bytes."""
    return int(psutil.Process(pid).memory_info().rss)

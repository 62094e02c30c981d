"""What the HTTP hop costs: one model, asked in process and over loopback, in one run.

    python -m tools.bench.overhead --server llama-server --output tools/bench/results

Roads: GGUFProvider in this process; ``mofa-gguf serve`` with OpenAI's client; with ``--server``
also llama.cpp's server with the same client. Every road has its own copy of the model and the same
threads; they are asked in turn, each time with a prompt that none has seen. Measured where the
asker sits: seconds until the first piece of text, and seconds for each token after it; and the
processor time that asker and server took for each token, which others on the machine change less.
The models are the demo checkpoint, where the hop is large against a step, and 0.4 B parameters in
Q4_0 (random weights), where it is not. Nothing is guessed ahead: random weights repeat themselves.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import psutil

WORDS = "river stone cloud paper music garden window silver morning letter"
IN_PROCESS, SERVED, PEER = "in process", "mofa-gguf serve", "llama-server"


@dataclass(frozen=True)
class Sample:
    """One answer. ``token_s`` is the mean of the tokens after the first; ``cpu_s`` is for all."""

    model: str
    road: str
    repeat: int
    n_tokens: int
    first_s: float
    token_s: float
    cpu_s: float


class Road(Protocol):
    """A way to ask the model: the count of the answer's tokens, and when its pieces came."""

    name: str

    def ask(self, prompt: str, n_tokens: int) -> tuple[int, list[float]]:
        """Answer greedily with exactly so many tokens."""

    def cpu_s(self) -> float:
        """Processor time until now of the processes that only this road has."""

    def close(self) -> None:
        """Give everything back."""


class InProcess:
    """The provider in this process, read as an agent reads it."""

    name = IN_PROCESS

    def __init__(self, model: Path, *, n_ctx: int, n_threads: int) -> None:
        from mofa_gguf import GGUFConfig, GGUFProvider

        config = GGUFConfig(
            model=str(model), n_ctx=n_ctx, n_threads=n_threads, speculation="off", max_parallel=1
        )
        self._loop = asyncio.new_event_loop()
        self._provider = GGUFProvider(config)
        self._loop.run_until_complete(self._provider.load())

    def ask(self, prompt: str, n_tokens: int) -> tuple[int, list[float]]:
        return self._loop.run_until_complete(self._ask(prompt, n_tokens))

    async def _ask(self, prompt: str, n_tokens: int) -> tuple[int, list[float]]:
        from mofa_gguf import ChatCompletionRequest

        request = ChatCompletionRequest.new().user_message(prompt)
        options = {"temperature": 0.0, "max_tokens": n_tokens, "ignore_eos": True}
        times, n = [], 0
        async for chunk in self._provider.chat_stream(request.with_options(options)):
            if any(not choice.delta.is_empty() for choice in chunk.choices):
                times.append(time.perf_counter())
            if chunk.usage is not None:
                n = chunk.usage.completion_tokens
                times.append(time.perf_counter())
        return n, times

    def cpu_s(self) -> float:
        return 0.0

    def close(self) -> None:
        self._loop.run_until_complete(self._provider.close())
        self._loop.close()


class OverHttp:
    """A server on loopback, asked with OpenAI's own client."""

    def __init__(self, name: str, command: Sequence[str], port: int, **environment: str) -> None:
        from openai import OpenAI

        self.name = name
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._process = subprocess.Popen(command, env={**os.environ, **environment}, **quiet)
        self._client = OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0)
        self._wait()

    def _wait(self) -> None:
        from openai import APIConnectionError, InternalServerError

        ends = time.monotonic() + 120
        while True:
            try:
                self.ask("Hello", 1)
                return
            except (APIConnectionError, InternalServerError):  # not yet listening, or loading
                if self._process.poll() is not None or time.monotonic() > ends:
                    self.close()
                    raise
                time.sleep(0.2)

    def ask(self, prompt: str, n_tokens: int) -> tuple[int, list[float]]:
        messages: Any = [{"role": "user", "content": prompt}]
        stream = self._client.chat.completions.create(
            model="",
            messages=messages,
            temperature=0,
            max_tokens=n_tokens,
            stream=True,
            stream_options={"include_usage": True},
            extra_body={"ignore_eos": True},
        )
        times, n = [], 0
        for chunk in stream:
            if chunk.choices and (chunk.choices[0].delta.content or chunk.choices[0].finish_reason):
                times.append(time.perf_counter())
            if chunk.usage is not None:
                n = chunk.usage.completion_tokens
        return n, times

    def cpu_s(self) -> float:
        times = psutil.Process(self._process.pid).cpu_times()
        return times.user + times.system

    def close(self) -> None:
        self._client.close()
        self._process.terminate()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def served(model: Path, *, n_ctx: int, n_threads: int) -> OverHttp:
    """``mofa-gguf serve`` in a process of its own."""
    port = free_port()
    command = [sys.executable, "-m", "mofa_gguf", "serve", str(model), "--port", str(port)]
    return OverHttp(
        SERVED,
        [*command, "--n-ctx", str(n_ctx)],
        port,
        MOFA_GGUF_N_THREADS=str(n_threads),
        MOFA_GGUF_SPECULATION="off",
        MOFA_GGUF_MAX_PARALLEL="1",
    )


def peer(binary: Path, model: Path, *, n_ctx: int, n_threads: int) -> OverHttp:
    """llama.cpp's server with one slot."""
    port = free_port()
    command = [str(binary), "-m", str(model), "-c", str(n_ctx), "-np", "1", "-t", str(n_threads)]
    return OverHttp(PEER, [*command, "--host", "127.0.0.1", "--port", str(port)], port)


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def measure(
    name: str, roads: Sequence[Road], *, repeats: int, n_tokens: int, n_words: int
) -> Iterator[Sample]:
    """Every road in turn, beginning with another one each time."""
    for repeat in range(-1, repeats):  # the first round warms up and does not count
        turn = repeat % len(roads)
        for road in [*roads[turn:], *roads[:turn]]:
            words = random.Random(f"{repeat} {road.name}").choices(WORDS.split(), k=n_words)
            started, cpu_s = time.perf_counter(), time.process_time() + road.cpu_s()
            n, times = road.ask(" ".join(words), n_tokens)
            cpu_s = time.process_time() + road.cpu_s() - cpu_s
            if n != n_tokens:
                raise RuntimeError(f"{road.name} answered with {n} tokens, not {n_tokens}")
            if repeat >= 0:
                token_s = (times[-1] - times[0]) / (n - 1)
                yield Sample(name, road.name, repeat, n, times[0] - started, token_s, cpu_s)


def table(samples: Sequence[Sample]) -> str:
    """Medians, and what each road takes beyond the first one in the same round.

    Rounds are compared with themselves, since what else runs on a machine changes slowly; in
    brackets the middle half of them. Where it holds zero, the difference is noise.
    """
    lines = [
        "| model | road | first token ms | a token ms | processor ms for a token "
        "| beyond in process: first ms | a token ms | processor ms for a token |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for model in dict.fromkeys(s.model for s in samples):
        rows = [s for s in samples if s.model == model]
        base = {s.repeat: s for s in rows if s.road == IN_PROCESS}
        for road in dict.fromkeys(s.road for s in rows):
            ours = [s for s in rows if s.road == road]
            cells = [f"{1000 * statistics.median(map(value, ours)):.2f}" for value in _MEASURED]
            for value in _MEASURED:
                beyond = [1000 * (value(s) - value(base[s.repeat])) for s in ours]
                cells.append("" if road == IN_PROCESS else _with_middle_half(beyond))
            lines.append(f"| {model} | {road} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


_MEASURED: tuple[Callable[[Sample], float], ...] = (
    lambda s: s.first_s,
    lambda s: s.token_s,
    lambda s: s.cpu_s / s.n_tokens,
)


def _with_middle_half(values: Sequence[float]) -> str:
    low, middle, high = statistics.quantiles(values, n=4)
    return f"{middle:+.2f} ({low:+.2f} to {high:+.2f})"


def models(folder: Path, chosen: Sequence[str]) -> Iterator[tuple[str, Path]]:
    """The models to measure, made as needed."""
    from mofa_gguf.store import resolve

    if "demo" in chosen:
        yield "demo", resolve("demo").path
    if "0.4B" in chosen:
        from tools.bench.model import Shape, write_model

        path = folder / "bench.gguf"
        if not path.exists():
            write_model(path, Shape())
        yield "0.4 B, Q4_0", path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--server", type=Path, help="a llama-server of the same version")
    parser.add_argument("--models", nargs="+", choices=["demo", "0.4B"], default=["demo", "0.4B"])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--tokens", type=int, default=48, help="of each answer")
    parser.add_argument("--words", type=int, default=24, help="of each prompt")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="where to keep the larger model")
    parser.add_argument("--output", type=Path, help="folder for overhead.json")
    arguments = parser.parse_args()
    samples: list[Sample] = []
    sizes = {"n_ctx": 512, "n_threads": arguments.threads}
    with tempfile.TemporaryDirectory() as scratch:
        for name, path in models(arguments.folder or Path(scratch), arguments.models):
            with ExitStack() as stack:
                roads: list[Road] = []

                def add(road: Road, stack: Any = stack, roads: Any = roads) -> None:
                    stack.callback(road.close)
                    roads.append(road)

                add(InProcess(path, **sizes))
                add(served(path, **sizes))
                if arguments.server:
                    add(peer(arguments.server, path, **sizes))
                samples += measure(
                    name,
                    roads,
                    repeats=arguments.repeats,
                    n_tokens=arguments.tokens,
                    n_words=arguments.words,
                )
    print(table(samples))
    if arguments.output:
        rows = json.dumps([asdict(sample) for sample in samples], indent=1)
        (arguments.output / "overhead.json").write_text(rows + "\n")


if __name__ == "__main__":
    main()

"""What replicas on Ray bring and cost, with the plugin mofa-gguf-ray: three measurements, one run.

    RAY_worker_niceness=0 python -m tools.bench.ray_scaling --output tools/bench/results

- Scaling: the same 0.4 B parameters (Q4_0, random weights) on one replica and on two, each pinned
  to a core of its own with one thread; tokens a second of all clients together. The one is either
  of the two, which take turns.
- The handle: one stream through a replica, and through the provider in this process, in turn, with
  prompts that none has seen: seconds until the first text, and for each token after it.
- Routing: conversations with one system prompt over two replicas of the demo model, by each of the
  routings: how many prompt tokens the replicas had to compute, and how many one engine has to.

Ray puts its workers at niceness 15 unless ``RAY_worker_niceness`` says otherwise, which matters
where others use the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import random
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from mofa_gguf import ChatCompletionRequest, GGUFConfig, GGUFProvider, LLMProvider

WORDS = "river stone cloud paper music garden window silver morning letter"
ONE_ENGINE = "one engine for all"
ROUTINGS = (ONE_ENGINE, "prefix", "power-of-two", "round-robin")
IN_PROCESS, HANDLE = "in process", "handle"
PARTS = ("scaling", "handle", "routing")
Engines = Callable[[], Awaitable[list[Any]]]
"""Tells the counts of every engine behind a provider."""
_MARKS = ("<!-- ray: begin -->", "<!-- ray: end -->")


@dataclass(frozen=True)
class Load:
    """So many clients on so many replicas, and what came of it."""

    n_replicas: int
    n_clients: int
    repeat: int
    n_tokens: int
    wall_s: float
    cpu_s: float


@dataclass(frozen=True)
class Stream:
    """One answer; ``token_s`` is the mean of the tokens after the first."""

    model: str
    road: str
    repeat: int
    first_s: float
    token_s: float
    cpu_s: float
    n_tokens: int


@dataclass(frozen=True)
class Routed:
    """All conversations under one routing."""

    routing: str
    n_prompt_tokens: int
    n_computed: int
    wall_s: float


def main() -> None:
    """Measure, and write or print the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--output", type=Path, help="the folder of the results")
    parser.add_argument("--model", type=Path, help="a GGUF file instead of random weights")
    parser.add_argument("--repeats", type=int, default=6)
    parser.add_argument("--tokens", type=int, default=16, help="of an answer")
    parser.add_argument("--clients", type=int, default=4, help="on each replica")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="ray-") as folder:  # sockets: short paths
        os.environ.setdefault("RAY_TMPDIR", folder)
        model = options.model or _random_model(Path(folder))
        found = asyncio.run(_measured(model, options))
    told = {name: [asdict(each) for each in part] for name, part in zip(PARTS, found, strict=True)}
    if options.output is None:
        print(_table(told))
        return
    file = options.output / "ray.json"
    before = json.loads(file.read_text()) if file.exists() else {}
    told = {**before, **{name: told[name] for name in options.only}}
    file.write_text(json.dumps(told, indent=1) + "\n")
    print(_table(told))
    _write(options.output / "README.md", _table(told))


async def _measured(
    model: Path, options: argparse.Namespace
) -> tuple[list[Load], list[Stream], list[Routed]]:
    loads: list[Load] = []
    streams: list[Stream] = []
    routed: list[Routed] = []
    async with _on_ray(model, replicas=2) as two:  # keeps Ray up between the measurements
        await two.load()
        if "scaling" in options.only:
            loads = await _scaling(two, options)
        for name, path in (("0.4 B, Q4_0", model), ("demo", "demo")):
            if "handle" in options.only:
                async with _on_ray(path, replicas=1) as one:
                    streams += await _overhead(path, name, one, options)
        if "routing" in options.only:
            for routing in ROUTINGS:
                routed += await _routing(routing, options.repeats)
    return loads, streams, routed


def _on_ray(model: Path | str, **options: Any) -> Any:
    from mofa_gguf_ray import RayConfig, RayProvider

    return RayProvider(RayConfig(**{**_same(model), "cpus": 0.1, "memory": 0, **options}))


def _same(model: Path | str) -> dict[str, Any]:
    """The model's options, alike everywhere. Random weights repeat themselves: no guessing."""
    return {"model": str(model), "n_ctx": 8192, "n_threads": 1, "speculation": "off"}


async def _scaling(two: Any, options: argparse.Namespace) -> list[Load]:
    """One replica is one of the two, each in its turn, while the other has nothing to do."""
    reports = await two.stats()
    pids = [report.pid for report in reports]
    _pin(pids)
    loads: list[Load] = []
    cases = [(1, options.clients), (2, 2 * options.clients), (1, 2 * options.clients)]
    await _load(two, pids, 2, 4, 0, 4)  # both are warm
    for repeat in range(options.repeats):
        for n_replicas, n_clients in cases:
            idle = [] if n_replicas == 2 else [reports[repeat % 2].replica]
            with _passed_over(two, idle):
                loads.append(await _load(two, pids, n_replicas, n_clients, repeat, options.tokens))
    return loads


def _pin(pids: Sequence[int]) -> None:
    """Each process with all its threads to a core of its own."""
    for core, pid in zip(sorted(os.sched_getaffinity(0)), pids, strict=False):
        for thread in psutil.Process(pid).threads():
            os.sched_setaffinity(thread.id, {core})


@contextmanager
def _passed_over(provider: Any, replicas: Sequence[str]) -> Iterator[None]:
    """These replicas get nothing, as if they had fallen silent."""
    provider._silent.update(dict.fromkeys(replicas, math.inf))
    try:
        yield
    finally:
        provider._silent.clear()


async def _load(
    provider: Any, pids: list[int], n_replicas: int, n_clients: int, repeat: int, n_tokens: int
) -> Load:
    before_s, began_s = _cpu_s(pids), time.perf_counter()
    answers = await asyncio.gather(
        *(provider.chat(_asked(_prompt(6), n_tokens)) for _ in range(n_clients))
    )
    wall_s = time.perf_counter() - began_s
    n_made = sum(answer.usage.completion_tokens for answer in answers if answer.usage)
    return Load(n_replicas, n_clients, repeat, n_made, wall_s, _cpu_s(pids) - before_s)


async def _overhead(
    model: Path | str, name: str, remote: Any, options: argparse.Namespace
) -> list[Stream]:
    streams: list[Stream] = []
    async with GGUFProvider(GGUFConfig(**_same(model))) as local:
        await local.load()
        far = [report.pid for report in await remote.stats()]
        roads: list[tuple[str, LLMProvider, list[int]]] = [
            (IN_PROCESS, local, [os.getpid()]),
            (HANDLE, remote, [os.getpid(), *far]),
        ]
        for road, provider, pids in roads:
            await _stream(name, road, provider, pids, 0, 4)
        for repeat in range(2 * options.repeats):
            for road, provider, pids in roads:
                streams.append(await _stream(name, road, provider, pids, repeat, options.tokens))
    return streams


async def _stream(
    model: str, road: str, provider: LLMProvider, pids: list[int], repeat: int, n_tokens: int
) -> Stream:
    times: list[float] = []
    n_made = 0
    before_s, began_s = _cpu_s(pids), time.perf_counter()
    async with aclosing(provider.chat_stream(_asked(_prompt(6), n_tokens))) as chunks:
        async for chunk in chunks:
            if chunk.choices[0].delta.content:
                times.append(time.perf_counter() - began_s)
            n_made = chunk.usage.completion_tokens if chunk.usage else n_made
    spent_s = _cpu_s(pids) - before_s
    token_s = (times[-1] - times[0]) / max(1, n_made - 1)
    return Stream(model, road, repeat, times[0], token_s, spent_s, n_made)


async def _routing(routing: str, repeats: int) -> list[Routed]:
    """The conversations over two replicas, or by one engine here: the least there is to compute."""
    if routing == ONE_ENGINE:
        async with GGUFProvider(GGUFConfig(**_same("demo"))) as local:

            async def engine() -> list[Any]:
                return _engines_of([local.status()])

            return [await _conversations(routing, n, local, engine) for n in range(repeats)]
    async with _on_ray("demo", replicas=2, routing=routing) as provider:

        async def engines() -> list[Any]:
            return _engines_of([report.status for report in await provider.stats()])

        return [await _conversations(routing, n, provider, engines) for n in range(repeats)]


async def _conversations(routing: str, repeat: int, provider: Any, engines: Engines) -> Routed:
    """Eight conversations of four turns, all at once, each with the same system prompt."""
    chance = random.Random(repeat)  # the same conversations for every routing
    system = _words(chance, 100)
    questions = [[_words(chance, 50) for _ in range(4)] for _ in range(8)]

    async def converse(mine: list[str]) -> None:
        request = ChatCompletionRequest.new().system(system)
        for question in mine:
            request = request.user_message(question)
            answer = await provider.chat(request.with_temperature(0).with_max_tokens(16))
            request = request.message(answer.choices[0].message)

    await provider.load()
    before, began_s = await _prompt_tokens(engines), time.perf_counter()
    await asyncio.gather(*(converse(mine) for mine in questions))
    wall_s, after = time.perf_counter() - began_s, await _prompt_tokens(engines)
    computed, cached = (b - a for a, b in zip(before, after, strict=True))
    return Routed(routing, computed + cached, computed, wall_s)


async def _prompt_tokens(engines: Engines) -> tuple[int, int]:
    """Those that were computed and those that were cached until now."""
    found = await engines()
    return (
        sum(engine.n_prompt_tokens_computed for engine in found),
        sum(engine.n_prompt_tokens_cached for engine in found),
    )


def _engines_of(statuses: Sequence[Any]) -> list[Any]:
    return [model.engine for status in statuses for model in status.models if model.engine]


def _words(chance: random.Random, n_words: int) -> str:
    return " ".join(chance.choices(WORDS.split(), k=n_words))


def _asked(prompt: str, n_tokens: int) -> ChatCompletionRequest:
    return (
        ChatCompletionRequest.new()
        .user_message(prompt)
        .with_options({"temperature": 1.0, "max_tokens": n_tokens, "ignore_eos": True})
    )


def _prompt(n_words: int) -> str:
    """A prompt that nobody has seen."""
    return _words(random.Random(), n_words)


def _cpu_s(pids: Sequence[int]) -> float:
    times = [psutil.Process(pid).cpu_times() for pid in pids]
    return sum(each.user + each.system for each in times)


def _random_model(folder: Path) -> Path:
    from tools.bench.model import write_model

    return write_model(folder / "bench.gguf")


def _table(told: dict[str, list[dict[str, Any]]]) -> str:
    loads = [Load(**each) for each in told.get("scaling", ())]
    streams = [Stream(**each) for each in told.get("handle", ())]
    routed = [Routed(**each) for each in told.get("routing", ())]
    return "\n\n".join(
        "\n".join(rows)
        for rows in (_scaling_rows(loads), _handle_rows(streams), _routing_rows(routed))
    )


def _scaling_rows(loads: list[Load]) -> list[str]:
    rows = ["| replicas | clients | tokens/s | ratio | tokens a processor second | ratio by it |",
            "| ---: | ---: | ---: | ---: | ---: | ---: |"]  # fmt: skip
    first = first_by_cpu = 0.0
    for case in dict.fromkeys((load.n_replicas, load.n_clients) for load in loads):
        mine = [load for load in loads if (load.n_replicas, load.n_clients) == case]
        speed = _median(load.n_tokens / load.wall_s for load in mine)
        by_cpu = _median(load.n_tokens / load.cpu_s for load in mine)
        first, first_by_cpu = first or speed, first_by_cpu or by_cpu
        # What the replicas would do with their cores to themselves.
        share = case[0] * by_cpu / first_by_cpu
        rows.append(
            f"| {case[0]} | {case[1]} | {speed:.1f} | {speed / first:.2f} | {by_cpu:.1f} "
            f"| {share:.2f} |"
        )
    return rows


def _handle_rows(streams: list[Stream]) -> list[str]:
    rows = ["| model | road | first token ms | a token ms | processor ms for a token |",
            "| --- | --- | ---: | ---: | ---: |"]  # fmt: skip
    for model, road in dict.fromkeys((each.model, each.road) for each in streams):
        mine = [each for each in streams if (each.model, each.road) == (model, road)]
        first = 1000 * _median(each.first_s for each in mine)
        token = 1000 * _median(each.token_s for each in mine)
        cpu = 1000 * _median(each.cpu_s / each.n_tokens for each in mine)
        rows.append(f"| {model} | {road} | {first:.2f} | {token:.3f} | {cpu:.2f} |")
    return rows


def _routing_rows(routed: list[Routed]) -> list[str]:
    rows = ["| routing | prompt tokens | computed | of one engine's |",
            "| --- | ---: | ---: | ---: |"]  # fmt: skip
    least = 0.0
    for routing in dict.fromkeys(each.routing for each in routed):
        mine = [each for each in routed if each.routing == routing]
        asked = _median(each.n_prompt_tokens for each in mine)
        computed = _median(each.n_computed for each in mine)
        least = least or computed
        rows.append(f"| {routing} | {asked:.0f} | {computed:.0f} | {computed / least:.2f} |")
    return rows


def _median(values: Any) -> float:
    return float(statistics.median(values))


def _write(page: Path, table: str) -> None:
    """Put the tables between their marks, and leave the words around them."""
    text = page.read_text()
    before, rest = text.split(_MARKS[0])
    after = rest.split(_MARKS[1])[1]
    page.write_text(f"{before}{_MARKS[0]}\n{table}\n{_MARKS[1]}{after}")


if __name__ == "__main__":
    main()

"""The engine against its peers on one machine, in one run.

    python -m tools.bench.engine --server /path/to/llama-server [--output FOLDER]

Makes its own checkpoint (0.4 B parameters, Q4_0, random weights) and runs each workload with every
contender in turn, several times, alternating; reported are medians and their ratios. Without
``--server`` llama.cpp's server is left out. Build it from the same source as the library:

    cmake -B build -DLLAMA_CURL=OFF && cmake --build build --target llama-server llama-bench
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tools.bench.model import Shape, write_model
from tools.bench.roads import LockedLlama, Ours, Outcome, Road, Server

N_THREADS = 2
SHAPE = Shape()
FIRST_WORD, LAST_WORD = 300, SHAPE.n_vocab


@dataclass
class Result:
    """One workload on one road, once."""

    workload: str
    road: str
    wall_s: float
    n_answer: int
    n_prompt_computed: int
    first_token_s: float


def text(rng: random.Random, n_tokens: int) -> list[int]:
    """Random words that occur nowhere else."""
    return [1, *(rng.randrange(FIRST_WORD, LAST_WORD) for _ in range(n_tokens - 1))]


def at_once(
    road: Road, prompts: Sequence[Sequence[int]], n_answer: int
) -> tuple[float, list[Outcome]]:
    """All prompts at the same time, each from a thread of its own."""
    outcomes: list[Outcome | None] = [None] * len(prompts)

    def one(i: int) -> None:
        outcomes[i] = road.complete(prompts[i], n_answer)

    threads = [threading.Thread(target=one, args=(i,)) for i in range(len(prompts))]
    started = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.monotonic() - started, [o for o in outcomes if o is not None]


def one_stream(road: Road, rng: random.Random) -> tuple[float, list[Outcome]]:
    """a. One stream of 64 tokens after a short prompt."""
    return at_once(road, [text(rng, 16)], 64)


def agents(road: Road, rng: random.Random) -> tuple[float, list[Outcome]]:
    """b. Eight agents with one system prompt of 512 tokens, 32-token questions and answers."""
    system = text(rng, 512)
    return at_once(road, [[*system, *text(rng, 33)[1:]] for _ in range(8)], 32)


def conversations(road: Road, rng: random.Random) -> tuple[float, list[Outcome]]:
    """c. Four agents, four turns each, interleaved: 64 new tokens and 32 answered a turn."""
    told = [text(rng, 128) for _ in range(4)]
    wall, outcomes = 0.0, []
    for _ in range(4):
        prompts = [[*history, *text(rng, 65)[1:]] for history in told]
        seconds, answers = at_once(road, prompts, 32)
        wall += seconds
        outcomes += answers
        told = [[*p, *a.tokens] for p, a in zip(prompts, answers, strict=True)]
    return wall, outcomes


def short_prompt(road: Road, rng: random.Random) -> tuple[float, list[Outcome]]:
    """d. Time to the first token of a short prompt."""
    return at_once(road, [text(rng, 16)], 1)


def streams(n: int) -> Callable[[Road, random.Random], tuple[float, list[Outcome]]]:
    """e. ``n`` streams of 32 tokens after prompts of 32 tokens."""

    def run(road: Road, rng: random.Random) -> tuple[float, list[Outcome]]:
        return at_once(road, [text(rng, 32) for _ in range(n)], 32)

    return run


WORKLOADS: dict[str, Callable[[Road, random.Random], tuple[float, list[Outcome]]]] = {
    "a one stream": one_stream,
    "b 8 agents, one system prompt": agents,
    "c 4 agents, 4 turns": conversations,
    "d first token": short_prompt,
    **{f"e {n} streams": streams(n) for n in (1, 2, 4, 8, 16)},
}


def measure(roads: Sequence[Road], chosen: Sequence[str], repeats: int) -> list[Result]:
    """Every workload on every road, alternating."""
    results = []
    for name in chosen:
        for repeat in range(repeats):
            for road in roads:
                rng = random.Random(f"{name} {repeat}")
                wall, outcomes = WORKLOADS[name](road, rng)
                result = Result(
                    workload=name,
                    road=road.name,
                    wall_s=wall,
                    n_answer=sum(o.n_tokens for o in outcomes),
                    n_prompt_computed=sum(o.n_prompt_computed for o in outcomes),
                    first_token_s=statistics.median(o.first_token_s for o in outcomes),
                )
                print(result, flush=True)
                results.append(result)
    return results


def table(results: Sequence[Result]) -> str:
    """A Markdown table of medians, with the ratio of our wall time to each road's."""
    lines = [
        "| workload | road | wall s | ours / it | tokens/s | first token s | prompt tokens |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for workload in dict.fromkeys(r.workload for r in results):
        rows = [r for r in results if r.workload == workload]
        walls = {
            road: statistics.median(r.wall_s for r in rows if r.road == road)
            for road in dict.fromkeys(r.road for r in rows)
        }
        for road, wall in walls.items():
            own = [r for r in rows if r.road == road]
            first = statistics.median(r.first_token_s for r in own)
            lines.append(
                f"| {workload} | {road} | {wall:.2f} | {walls[Ours.name] / wall:.2f} "
                f"| {own[0].n_answer / wall:.1f} | {first:.3f} | {own[0].n_prompt_computed} |"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--server", type=Path, help="a llama-server of the same version")
    parser.add_argument("--model", type=Path, help="where to keep the checkpoint")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=[], help="beginnings of workload names")
    parser.add_argument("--output", type=Path, help="folder for results.json and table.md")
    arguments = parser.parse_args()
    chosen = [w for w in WORKLOADS if not arguments.only or w.startswith(tuple(arguments.only))]
    with tempfile.TemporaryDirectory() as scratch:
        model = arguments.model or Path(scratch) / "bench.gguf"
        if not model.exists():
            write_model(model, SHAPE)
        common = {"n_ctx": 16384, "n_parallel": 16, "n_threads": N_THREADS}
        roads: list[Road] = [Ours(model, **common), LockedLlama(model, **common)]
        if arguments.server:
            roads.append(Server(model, **common, binary=arguments.server))
        try:
            results = measure(roads, chosen, arguments.repeats)
        finally:
            for road in roads:
                road.close()
    print(table(results))
    if arguments.output:
        arguments.output.mkdir(parents=True, exist_ok=True)
        rows = json.dumps([asdict(r) for r in results], indent=1)
        (arguments.output / "results.json").write_text(rows)
        (arguments.output / "table.md").write_text(table(results))


if __name__ == "__main__":
    main()

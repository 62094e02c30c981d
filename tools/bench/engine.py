"""The engine against its peers on one machine, in one run.

    python -m tools.bench.engine --server llama-server --llama-bench llama-bench \\
        --xllamacpp PYTHON --output FOLDER

Makes its own checkpoint (0.4 B parameters, Q4_0, random weights) and runs each workload with every
contender in turn, several times, alternating; reported are medians and their ratios. Each
contender has a process of its own. Those whose option is left out are left out. Build llama.cpp's
tools from the same source as the library:

    cmake -B build -DLLAMA_CURL=OFF && cmake --build build --target llama-server llama-bench

``--server`` may be given more than once, with a name for the table: ``--server "llama-server, same
flags=build2/bin/llama-server"``.

``--xllamacpp`` is a Python with the package xllamacpp, whose wheel brings a llama.cpp of its own.
The picture needs matplotlib.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

from tools.bench.model import Shape, write_model
from tools.bench.remote import RemoteRoad, Result
from tools.bench.roads import LockedLlama, Ours, Server, XLlamaCpp
from tools.bench.workloads import ANSWER, PROMPT, WORKLOADS

N_THREADS = 2
N_CTX, N_PARALLEL = 16384, 16
ONE_STREAM = "a one stream"


def measure(
    roads: Sequence[RemoteRoad], chosen: Sequence[str], repeats: int, bench: LlamaBench | None
) -> list[Result]:
    """Every workload on every road, alternating."""
    results = []
    for name in chosen:
        for repeat in range(repeats):
            row = [road.run(name, repeat) for road in roads]
            if name == ONE_STREAM and bench is not None:
                row.append(bench.run())
            for result in row:
                print(result, flush=True)
            results += row
    return results


class LlamaBench:
    """llama.cpp's own measure of decoding, of what the others decode: 63 tokens behind a prompt."""

    name = "llama-bench"

    def __init__(self, binary: Path, model: Path) -> None:
        self._command = [str(binary), "-m", str(model), "-t", str(N_THREADS)]
        self._command += ["-p", "0", "-d", str(PROMPT), "-n", str(ANSWER - 1)]
        self._command += ["-r", "1", "-o", "json"]

    def run(self) -> Result:
        """One measurement; its clock starts with the first token."""
        done = subprocess.run(self._command, capture_output=True, check=True, text=True)
        (row,) = json.loads(done.stdout)
        seconds = row["avg_ns"] / 1e9
        return Result(ONE_STREAM, self.name, seconds, ANSWER, 0, 0.0, 0.0)


def table(results: Sequence[Result]) -> str:
    """A Markdown table of medians, with the ratio of our wall time to each road's."""
    lines = [
        "| workload | road | wall s | ours / it | tokens/s | first token s | prompt tokens | MB |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for workload in dict.fromkeys(r.workload for r in results):
        rows = [r for r in results if r.workload == workload and r.road != LlamaBench.name]
        ours = median(r.wall_s for r in rows if r.road == Ours.name)
        for road in dict.fromkeys(r.road for r in rows):
            own = [r for r in rows if r.road == road]
            wall, first = median(r.wall_s for r in own), median(r.first_token_s for r in own)
            lines.append(
                f"| {workload} | {road} | {wall:.2f} | {ours / wall:.2f} "
                f"| {own[0].n_answer / wall:.1f} | {first:.3f} | {own[0].n_prompt_computed} "
                f"| {median(r.resident_mb for r in own):.0f} |"
            )
    return "\n".join(lines) + "\n" + decode_speeds(results)


def decode_speeds(results: Sequence[Result]) -> str:
    """One stream's speed behind the first token, each road's, and what of llama-bench's it is."""
    rows = [r for r in results if r.workload == ONE_STREAM]
    speeds = {
        road: median(r.decode_tokens_per_s for r in rows if r.road == road)
        for road in dict.fromkeys(r.road for r in rows)
    }
    if LlamaBench.name not in speeds:
        return ""
    lines = ["", "| one stream | decode tokens/s | of llama-bench |", "| --- | ---: | ---: |"]
    best = speeds[LlamaBench.name]
    lines += [f"| {road} | {speed:.1f} | {speed / best:.3f} |" for road, speed in speeds.items()]
    return "\n".join(lines) + "\n"


def median(values: Iterable[float]) -> float:
    """The median, of at least one value."""
    return statistics.median(values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--server", action="append", default=[], metavar="[NAME=]PATH",
        help="a llama-server of the same version",
    )  # fmt: skip
    parser.add_argument("--llama-bench", type=Path, help="a llama-bench of the same version")
    parser.add_argument("--xllamacpp", type=Path, help="a Python that has xllamacpp")
    parser.add_argument("--model", type=Path, help="where to keep the checkpoint")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=[], help="beginnings of workload names")
    parser.add_argument("--output", type=Path, help="folder for engine.json and engine.svg")
    arguments = parser.parse_args()
    chosen = [w for w in WORKLOADS if not arguments.only or w.startswith(tuple(arguments.only))]
    with tempfile.TemporaryDirectory() as scratch:
        model = arguments.model or Path(scratch) / "bench.gguf"
        if not model.exists():
            write_model(model, Shape())
        common = {"n_ctx": N_CTX, "n_parallel": N_PARALLEL, "n_threads": N_THREADS, "model": model}
        bench = LlamaBench(arguments.llama_bench, model) if arguments.llama_bench else None
        roads = [RemoteRoad(Ours, **common), RemoteRoad(LockedLlama, **common)]
        for server in arguments.server:
            name, _, path = server.rpartition("=")
            named = {"name": name} if name else {}
            roads.append(RemoteRoad(Server, **common, binary=Path(path), **named))
        if arguments.xllamacpp:
            roads.append(RemoteRoad(XLlamaCpp, **common, binary=arguments.xllamacpp))
        try:
            results = measure(roads, chosen, arguments.repeats, bench)
        finally:
            for road in roads:
                road.close()
    print(table(results))
    if arguments.output:
        save(results, arguments.output)


def save(results: Sequence[Result], folder: Path) -> None:
    """Write the figures and, where the streams were measured, their picture."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = json.dumps([asdict(r) for r in results], indent=1)
    (folder / "engine.json").write_text(rows + "\n")
    if any(r.workload.startswith("e ") for r in results):
        from tools.bench.picture import draw_streams

        draw_streams(results, folder / "engine.svg")


if __name__ == "__main__":
    main()

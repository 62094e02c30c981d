"""Computing an importance matrix: the model reads a text, and the file is llama-imatrix's.

Keys and tensors are those of llama.cpp's GGUF form (``save_imatrix`` in tools/imatrix/imatrix.cpp),
in its order, so that its quantizer and :mod:`mofa_gguf.convert.importance` read them alike.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from mofa_gguf.convert.errors import ConversionError, ImportanceError
from mofa_gguf.convert.importance import read_importance
from mofa_gguf.convert.metadata import Metadata, written_name
from mofa_gguf.convert.output import PartialFile, check_space, check_target
from mofa_gguf.convert.parts import Part
from mofa_gguf.convert.plan import Plan, PlannedTensor
from mofa_gguf.convert.quantizations import QUANTIZATIONS
from mofa_gguf.convert.report import ConversionProgress
from mofa_gguf.convert.weights import computed
from mofa_gguf.convert.writer import Encoding, write_gguf
from mofa_gguf.engine.errors import EngineError, InvalidOption
from mofa_gguf.engine.files.tensor_types import TYPES_BY_NAME
from mofa_gguf.engine.models.activations import ColumnSums
from mofa_gguf.engine.models.reading import Reading, read_in_chunks

MAX_TEXT_BYTES = 2**28
STAGE = "reading the text"


@dataclass(frozen=True)
class ImportanceOrder:
    """What was asked for."""

    model: Path
    text: Path
    output: Path
    chunk_size: int
    max_chunks: int | None
    with_output: bool
    force: bool
    n_threads: int | None
    observer: Callable[[ConversionProgress], None] | None = None


@dataclass(frozen=True)
class ImportanceReport:
    """What an importance matrix was computed from, and what is in it."""

    model: Path
    text: Path
    output: Path
    n_chunks: int
    chunk_size: int
    """Tokens of each chunk."""
    n_entries: int
    """Matrices that have weights."""
    warnings: tuple[str, ...]
    seconds: float

    def to_dict(self) -> dict[str, object]:
        """Plain values, ready for JSON."""
        return {k: str(v) if isinstance(v, Path) else v for k, v in asdict(self).items()}


def run(order: ImportanceOrder) -> ImportanceReport:
    """Compute as ordered. Raises ConversionError and its kind, as :func:`compute_importance`."""
    began = time.perf_counter()
    check_target(order.output, force=order.force)
    text = _text(order.text)
    try:
        reading = read_in_chunks(
            order.model,
            text,
            chunk_size=order.chunk_size,
            max_chunks=order.max_chunks,
            with_output=order.with_output,
            n_threads=order.n_threads,
            observe=lambda done, total: _tell(order, len(text), done, total),
        )
    except InvalidOption as error:
        raise ImportanceError(order.text, f"cannot be read so: {error}") from error
    except EngineError as error:
        raise ImportanceError(order.model, f"gives no importance matrix: {error}") from error
    if not reading.columns:
        raise ImportanceError(
            order.model, "gives no importance matrix: none of its matrices takes part in a product"
        )
    part = Part(order.output, _metadata(order, reading), _plan(reading))
    check_space(part.path, part.n_bytes)
    with PartialFile(part.path) as output:
        with Encoding(part.plan.tensors, n_threads=1) as encoding:
            write_gguf(output, part, encoding)
        found = read_importance(output.path)
        output.commit()
    return ImportanceReport(
        model=order.model,
        text=order.text,
        output=order.output,
        n_chunks=reading.n_chunks,
        chunk_size=reading.chunk_size,
        n_entries=len(found.entries),
        warnings=tuple(_warnings(reading)),
        seconds=time.perf_counter() - began,
    )


def _tell(order: ImportanceOrder, n_bytes: int, done: int, total: int) -> None:
    if order.observer is not None:
        n_done = n_bytes * done // total
        order.observer(ConversionProgress(STAGE, "", done, total, n_done, n_bytes))


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_TEXT_BYTES + 1)
    except OSError as error:
        raise ConversionError(f"{path}: cannot be read ({error.strerror})") from error
    if len(data) > MAX_TEXT_BYTES:
        raise ConversionError(f"{path}: has more than {MAX_TEXT_BYTES} bytes; a few MB are enough")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConversionError(f"{path}: is no UTF-8 text (byte {error.start})") from error


def _metadata(order: ImportanceOrder, reading: Reading) -> Metadata:
    metadata = Metadata()
    metadata.string("general.type", "imatrix")
    metadata.strings("imatrix.datasets", [written_name(order.text.name)])
    metadata.uint32("imatrix.chunk_count", reading.n_chunks)
    metadata.uint32("imatrix.chunk_size", reading.chunk_size)
    return metadata


def _plan(reading: Reading) -> Plan:
    tensors: list[PlannedTensor] = []
    for name, entry in sorted(reading.columns.items()):
        # A row for each count, as llama.cpp lays them out; a single one is no dimension.
        n = len(entry.counts)
        sums = entry.sums.reshape((n, -1) if n > 1 else -1).astype(np.float32)
        counts = entry.counts.reshape((n, 1) if n > 1 else 1).astype(np.float32)
        for ending, values in ((".in_sum2", sums), (".counts", counts)):
            weights = computed(np.ascontiguousarray(values))
            tensors.append(PlannedTensor(name + ending, weights, TYPES_BY_NAME["F32"]))
    return Plan(QUANTIZATIONS["F32"], tuple(tensors))


def _warnings(reading: Reading) -> list[str]:
    silent = {name: _n_silent(entry) for name, entry in reading.columns.items()}
    n_experts = max(silent.values(), default=0)
    if not n_experts:
        return []
    n_tensors = sum(1 for n in silent.values() if n)
    return [
        f"{n_tensors} tensors have experts that no token was sent to (up to {n_experts}); a longer "
        "or more varied text would reach them"
    ]


def _n_silent(entry: ColumnSums) -> int:
    return int((entry.counts == 0).sum())

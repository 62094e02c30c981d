"""One pass from checkpoint to file: read, transform, quantize in threads, write in order.

The work is cut into slabs of rows. A few slabs are in flight at a time, so memory is bounded by
the slab's size and the number of threads, not by the model.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mofa_gguf.convert.encode import encode_rows
from mofa_gguf.convert.gguf_format import header_bytes, padded
from mofa_gguf.convert.metadata import Metadata
from mofa_gguf.convert.output import PartialFile, output_error
from mofa_gguf.convert.plan import Plan, PlannedTensor

SLAB_ELEMENTS = 2**20
"""4 MB as float32: large enough to hide Python's share, small enough for the cache."""
_SLABS_PER_THREAD = 3


@dataclass(frozen=True)
class Written:
    """What has been written so far; handed to the observer after every slab."""

    tensor: str
    n_tensors: int
    n_bytes: int


@dataclass(frozen=True)
class _Slab:
    tensor: PlannedTensor
    start: int
    stop: int

    @property
    def is_last(self) -> bool:
        return self.stop == self.tensor.weights.n_rows


def write_gguf(
    output: PartialFile,
    metadata: Metadata,
    plan: Plan,
    *,
    n_threads: int,
    observe: Callable[[Written], None] = lambda written: None,
) -> None:
    """Write the whole file. Raises OutputError, BadTensor, CheckpointError.

    ``observe`` is called in this thread. The bytes depend on the arguments only, not on threads.
    """
    _write(output, header_bytes(metadata, plan.tensors))
    n_tensors = n_bytes = 0
    with contextlib.closing(_encoded(_slabs(plan), n_threads)) as stream:
        for slab, data in stream:
            _write(output, data)
            n_bytes += len(data)
            if slab.is_last:
                size = slab.tensor.n_bytes
                _write(output, bytes(padded(size) - size))
                slab.tensor.weights.release()
                n_tensors += 1
            observe(Written(slab.tensor.name, n_tensors, n_bytes))
    output.flush()


def _slabs(plan: Plan) -> Iterator[_Slab]:
    for tensor in plan.tensors:
        n_rows = tensor.weights.n_rows
        step = max(1, SLAB_ELEMENTS // tensor.weights.row_length)
        for start in range(0, n_rows, step):
            yield _Slab(tensor, start, min(start + step, n_rows))


def _encoded(
    slabs: Iterator[_Slab], n_threads: int
) -> Generator[tuple[_Slab, memoryview], None, None]:
    """Every slab's bytes, in order, computed ahead by the threads."""
    pending: deque[tuple[_Slab, Future[npt.NDArray[np.uint8]]]] = deque()
    pool = ThreadPoolExecutor(n_threads, thread_name_prefix="mofa-gguf-convert")
    try:
        for slab in slabs:
            pending.append((slab, pool.submit(encode_rows, slab.tensor, slab.start, slab.stop)))
            if len(pending) >= _SLABS_PER_THREAD * n_threads:
                yield _result(pending)
        while pending:
            yield _result(pending)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _result(pending: deque[tuple[_Slab, Future[Any]]]) -> tuple[_Slab, memoryview]:
    slab, future = pending.popleft()
    return slab, memoryview(future.result()).cast("B")


def _write(output: PartialFile, data: bytes | memoryview) -> None:
    try:
        output.file.write(data)
    except OSError as error:
        raise output_error(output.target, error) from error

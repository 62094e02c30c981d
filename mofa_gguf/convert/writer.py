"""One pass from checkpoint to file: read, transform, quantize in threads, write in order.

The work is cut into slabs of rows. A few slabs are in flight at a time, so memory is bounded by
the slab's size and the number of threads, not by the model.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, NamedTuple

from mofa_gguf.convert.encode import encode_rows
from mofa_gguf.convert.gguf_format import padded
from mofa_gguf.convert.output import PartialFile, output_error
from mofa_gguf.convert.parts import Part
from mofa_gguf.convert.plan import PlannedTensor
from mofa_gguf.engine.quantize import load_kernels

SLAB_ELEMENTS = 2**20
"""4 MB as float32: large enough to hide Python's share, small enough for the cache."""
_SLOWER = 16
"""Kernels that look for points of a grid take up to 9 s for such a slab, and who gives up waits."""
_SLABS_PER_THREAD = 3
_LEAST_AHEAD = 24 * SLAB_ELEMENTS
"""Elements that are computed ahead, at least: about what two threads do while a tokenizer is
measured, and at most 100 MB."""


class Written(NamedTuple):
    """What has been written so far; handed to the observer after every slab."""

    tensor: str
    n_tensors: int
    n_bytes: int


class _Slab(NamedTuple):
    tensor: PlannedTensor
    start: int
    stop: int

    @property
    def n_elements(self) -> int:
        return (self.stop - self.start) * self.tensor.weights.row_length


class Encoding:
    """The bytes of all tensors, a slab at a time, computed ahead by threads in the order of need.

    Threads begin at once, so that they work while the header is still being made, and keep a few
    slabs ahead. Use as a context manager: leaving it ends the threads.
    """

    def __init__(self, tensors: Sequence[PlannedTensor], *, n_threads: int) -> None:
        self._slabs = _slabs(tensors)
        self._pending: deque[tuple[_Slab, Future[Any]]] = deque()
        self._n_ahead = 0
        self._most_ahead = max(_SLABS_PER_THREAD * n_threads * SLAB_ELEMENTS, _LEAST_AHEAD)
        # Imported here, and nothing on the threads: an import that Ctrl-C ends half-way may keep
        # those of other threads waiting for ever, and leaving waits for the threads.
        load_kernels()
        self._pool = ThreadPoolExecutor(n_threads, thread_name_prefix="mofa-gguf-convert")
        self._fill()

    def _fill(self) -> None:
        while self._n_ahead < self._most_ahead:
            slab = next(self._slabs, None)
            if slab is None:
                return
            future = self._pool.submit(encode_rows, slab.tensor, slab.start, slab.stop)
            self._pending.append((slab, future))
            self._n_ahead += slab.n_elements

    def of(self, tensor: PlannedTensor) -> Iterator[memoryview]:
        """The next tensor's data, piece by piece. Raises BadTensor, CheckpointError."""
        while self._pending and self._pending[0][0].tensor is tensor:
            slab, future = self._pending.popleft()
            data = memoryview(future.result()).cast("B")
            self._n_ahead -= slab.n_elements
            self._fill()
            yield data

    def __enter__(self) -> Encoding:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)


def write_gguf(
    output: PartialFile,
    part: Part,
    encoding: Encoding,
    *,
    observe: Callable[[Written], None] = lambda written: None,
) -> None:
    """Write a whole file. Raises OutputError, BadTensor, CheckpointError.

    ``encoding`` is that of the part's tensors, or of a whole model up to this part. ``observe`` is
    called in this thread. The bytes depend on the part only, not on threads.
    """
    _write(output, part.header)
    n_bytes = 0
    for n_tensors, tensor in enumerate(part.plan.tensors):
        n_expected = n_bytes + tensor.n_bytes
        for data in encoding.of(tensor):
            _write(output, data)
            n_bytes += len(data)
            observe(Written(tensor.name, n_tensors, n_bytes))
        assert n_bytes == n_expected, tensor.name
        _write(output, bytes(padded(tensor.n_bytes) - tensor.n_bytes))
        tensor.weights.release()
        observe(Written(tensor.name, n_tensors + 1, n_bytes))
    output.flush()


def _slabs(tensors: Sequence[PlannedTensor]) -> Iterator[_Slab]:
    for tensor in tensors:
        n_rows = tensor.weights.n_rows
        is_slow = tensor.target.name.startswith("IQ")
        n_elements = SLAB_ELEMENTS // _SLOWER if is_slow else SLAB_ELEMENTS
        step = max(1, n_elements // tensor.weights.row_length)
        for start in range(0, n_rows, step):
            yield _Slab(tensor, start, min(start + step, n_rows))


def _write(output: PartialFile, data: bytes | memoryview) -> None:
    try:
        output.file.write(data)
    except OSError as error:
        raise output_error(output.target, error) from error

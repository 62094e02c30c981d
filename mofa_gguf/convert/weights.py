"""Tensors on their way from a checkpoint to a GGUF file: described now, read in pieces later.

A :class:`Weights` is a recipe for rows. Families combine them (rename, permute, compute); the
writer asks for a few megabytes of rows at a time, from several threads. Nothing here keeps data.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mofa_gguf.convert.checkpoint import Checkpoint
from mofa_gguf.convert.errors import BadTensor
from mofa_gguf.convert.safetensors_file import SafetensorsFile
from mofa_gguf.engine.files.tensor_types import TYPES_BY_NAME
from mofa_gguf.engine.quantize import dequantize_rows

Rows = npt.NDArray[Any]


@dataclass(frozen=True)
class Weights:
    """A tensor seen as a matrix: the last dimension is a row, all others together number the rows.

    ``read(start, stop)`` gives those rows as they are stored: float32, float16 or float64, and
    for ``dtype`` "BF16" the 16-bit patterns as uint16. It may be called from any thread.
    """

    shape: tuple[int, ...]
    dtype: str
    read: Callable[[int, int], Rows]
    sources: tuple[str, ...] = ()
    """The checkpoint's tensors that the data comes from; empty for computed ones."""
    origin: Path | None = None
    """The file that the data comes from, for error messages."""
    release: Callable[[], None] = lambda: None
    """To be called when all rows were read: the source's pages may leave the memory."""

    @property
    def row_length(self) -> int:
        """Elements a row."""
        return self.shape[-1]

    @property
    def n_rows(self) -> int:
        """Rows of the matrix; a vector is one row."""
        return math.prod(self.shape[:-1])

    @property
    def n_elements(self) -> int:
        """Product of the shape."""
        return math.prod(self.shape)


def stored(checkpoint: Checkpoint, name: str) -> Weights:
    """A tensor as it is in the checkpoint."""
    tensor = checkpoint.tensors[name]
    shape = tensor.shape

    def read(start: int, stop: int) -> Rows:
        return checkpoint.array(name).reshape(-1, shape[-1])[start:stop]

    return Weights(
        shape,
        tensor.dtype,
        read,
        (name,),
        checkpoint.file_of(name),
        lambda: checkpoint.release(name),
    )


def from_file(file: SafetensorsFile, name: str) -> Weights:
    """A tensor of another file of the folder, which stays open as long as the recipe lives."""
    tensor = file.tensors[name]
    shape = tensor.shape

    def read(start: int, stop: int) -> Rows:
        return file.array(name).reshape(-1, shape[-1])[start:stop]

    return Weights(shape, tensor.dtype, read, origin=file.path, release=lambda: file.release(name))


def computed(values: npt.NDArray[np.float32]) -> Weights:
    """A small tensor that the converter computes itself."""
    matrix = values.reshape(-1, values.shape[-1])
    return Weights(values.shape, "F32", lambda start, stop: matrix[start:stop])


def reordered(weights: Weights, order: npt.NDArray[np.intp]) -> Weights:
    """The first dimension in another order: entry ``i`` is what was at ``order[i]``."""
    if len(weights.shape) == 1:
        return replace(weights, read=lambda start, stop: weights.read(start, stop)[:, order])

    def read(start: int, stop: int) -> Rows:
        wanted = order[start:stop]
        low, high = int(wanted.min()), int(wanted.max()) + 1
        return weights.read(low, high)[wanted - low]

    return replace(weights, read=read)


def stacked(parts: Sequence[Weights]) -> Weights:
    """Tensors of one shape and type under a new first dimension.

    Each part is let go as soon as its last row was read: a stack may be larger than the memory.
    Raises BadTensor where the parts' types differ.
    """
    first = parts[0]
    for part in parts:
        if part.dtype != first.dtype:
            raise BadTensor(
                part.origin or "computed",
                part.sources[0],
                f"has the type {part.dtype}, but {first.sources[0]!r:.100}, which it is "
                f"stacked with, has {first.dtype}",
            )
    n_rows = first.n_rows

    def read(start: int, stop: int) -> Rows:
        pieces = []
        for i in range(start // n_rows, (stop - 1) // n_rows + 1):
            low, high = max(start - i * n_rows, 0), min(stop - i * n_rows, n_rows)
            rows = parts[i].read(low, high)
            if high == n_rows:
                rows = rows.copy()
                parts[i].release()
            pieces.append(rows)
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def release() -> None:
        for part in parts:
            part.release()

    return Weights(
        (len(parts), *first.shape),
        first.dtype,
        read,
        tuple(name for part in parts for name in part.sources),
        first.origin,
        release,
    )


def rows_of_each(weights: Weights, order: npt.NDArray[np.intp]) -> Weights:
    """Of every matrix (the last two dimensions) only the rows ``order``, in that order."""
    n_rows, n_wanted = weights.shape[-2], len(order)

    def read(start: int, stop: int) -> Rows:
        pieces = []
        for i in range(start // n_wanted, (stop - 1) // n_wanted + 1):
            wanted = order[max(start - i * n_wanted, 0) : min(stop - i * n_wanted, n_wanted)]
            low, high = int(wanted.min()), int(wanted.max()) + 1
            rows = weights.read(i * n_rows + low, i * n_rows + high)
            # Consecutive rows are a view of the file, others a copy.
            is_run = np.array_equal(wanted, np.arange(low, high))
            pieces.append(rows if is_run else rows[wanted - low])
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    return replace(weights, shape=(*weights.shape[:-2], n_wanted, weights.shape[-1]), read=read)


def columns(weights: Weights, wanted: slice) -> Weights:
    """Of every row only the elements ``wanted``."""
    n_wanted = len(range(*wanted.indices(weights.shape[-1])))

    def read(start: int, stop: int) -> Rows:
        return weights.read(start, stop)[:, wanted]

    return replace(weights, shape=(*weights.shape[:-1], n_wanted), read=read)


def reshaped(weights: Weights, shape: tuple[int, ...]) -> Weights:
    """The same elements in another shape; for small tensors, which are read whole each time."""

    def read(start: int, stop: int) -> Rows:
        rows: Rows = weights.read(0, weights.n_rows).reshape(-1, shape[-1])[start:stop]
        return rows

    return replace(weights, shape=shape, read=read)


def multiplied(weights: Weights, factors: npt.NDArray[np.float32]) -> Weights:
    """Every row times its factor, as float32; one factor counts for all rows."""

    def read(start: int, stop: int) -> Rows:
        values = to_float32(weights.read(start, stop), weights.dtype)
        product: Rows = values * (factors if len(factors) == 1 else factors[start:stop, None])
        return product

    return replace(weights, dtype="F32", read=read)


def columns_reordered(weights: Weights, order: npt.NDArray[np.intp]) -> Weights:
    """Every row in another order: element ``i`` is what was at ``order[i]``."""

    def read(start: int, stop: int) -> Rows:
        return weights.read(start, stop)[:, order]

    return replace(weights, read=read)


def plus(weights: Weights, constant: float) -> Weights:
    """Every value plus ``constant``, as float32."""

    def read(start: int, stop: int) -> Rows:
        values = to_float32(weights.read(start, stop), weights.dtype)
        summed: npt.NDArray[np.float32] = values + np.float32(constant)
        return summed

    return replace(weights, dtype="F32", read=read)


def transposed(weights: Weights) -> Weights:
    """Every matrix (the last two dimensions) with rows and columns exchanged."""
    *stack, n_rows, n_columns = weights.shape

    def read(start: int, stop: int) -> Rows:
        pieces = []
        for i in range(start // n_columns, (stop - 1) // n_columns + 1):
            low, high = max(start - i * n_columns, 0), min(stop - i * n_columns, n_columns)
            pieces.append(weights.read(i * n_rows, (i + 1) * n_rows)[:, low:high].T)
        return np.ascontiguousarray(pieces[0]) if len(pieces) == 1 else np.concatenate(pieces)

    return replace(weights, shape=(*stack, n_columns, n_rows), read=read)


def mapped(weights: Weights, function: Callable[[Rows], Rows]) -> Weights:
    """Every value as ``function`` makes it of a float32 array."""

    def read(start: int, stop: int) -> Rows:
        return function(to_float32(weights.read(start, stop), weights.dtype))

    return replace(weights, dtype="F32", read=read)


def to_float32(rows: Rows, dtype: str) -> npt.NDArray[np.float32]:
    """Stored rows as float32; blocks as ggml turns them back. F64 is rounded to nearest.

    Raises InvalidOption for a type that ggml cannot turn back.
    """
    kind = TYPES_BY_NAME.get(dtype)
    if kind is not None and kind.block_size > 1:
        return dequantize_rows(rows, kind)
    if dtype == "BF16":
        # bfloat16 is the upper half of a float32.
        return np.left_shift(rows, 16, dtype=np.uint32, casting="unsafe").view(np.float32)
    return rows.astype(np.float32, copy=False)


# The bits of the exponent; all of them set means infinity or NaN (IEEE 754, bfloat16 alike).
# Bits of positive numbers are in the order of the numbers as signed integers, those of negative
# ones as unsigned integers, where they stand above all positive ones.
_EXPONENT = {
    "F32": (np.int32, np.uint32, 0x7F800000, 0xFF800000),
    "F16": (np.int16, np.uint16, 0x7C00, 0xFC00),
    "BF16": (np.int16, np.uint16, 0x7F80, 0xFF80),
}


def is_finite(rows: Rows, dtype: str) -> bool:
    """Whether no value is NaN or infinite."""
    if dtype not in _EXPONENT:
        return bool(np.isfinite(rows).all())
    signed, unsigned, infinity, negative_infinity = _EXPONENT[dtype]
    bits = np.ascontiguousarray(rows)
    # The largest of each, and no array in between: that would cost more than the comparison.
    return bool(
        bits.view(signed).max(initial=0) < infinity
        and bits.view(unsigned).max(initial=0) < negative_infinity
    )


def same_data(checkpoint: Checkpoint, first: str, second: str) -> bool:
    """Whether two of the checkpoint's tensors hold the same values, read piece by piece."""
    one, other = (stored(checkpoint, name) for name in (first, second))
    if (one.shape, one.dtype) != (other.shape, other.dtype):
        return False
    step = max(1, 2**20 // one.row_length)
    return all(
        np.array_equal(one.read(i, i + step), other.read(i, i + step))
        for i in range(0, one.n_rows, step)
    )

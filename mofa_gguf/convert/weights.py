"""Tensors on their way from a checkpoint to a GGUF file: described now, read in pieces later.

A :class:`Weights` is a recipe for rows. Families combine them (rename, permute, compute); the
writer asks for a few megabytes of rows at a time, from several threads. Nothing here keeps data.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mofa_gguf.convert.checkpoint import Checkpoint

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


def to_float32(rows: Rows, dtype: str) -> npt.NDArray[np.float32]:
    """Stored rows as float32. Exact but for F64, which is rounded to nearest."""
    if dtype == "BF16":
        # bfloat16 is the upper half of a float32.
        return np.left_shift(rows, 16, dtype=np.uint32, casting="unsafe").view(np.float32)
    return rows.astype(np.float32, copy=False)


# The bits of the exponent; all of them set means infinity or NaN (IEEE 754, bfloat16 alike).
_EXPONENT = {
    "F32": (np.uint32, 0x7F800000),
    "F16": (np.uint16, 0x7C00),
    "BF16": (np.uint16, 0x7F80),
}


def is_finite(rows: Rows, dtype: str) -> bool:
    """Whether no value is NaN or infinite."""
    if dtype not in _EXPONENT:
        return bool(np.isfinite(rows).all())
    kind, exponent = _EXPONENT[dtype]
    bits = np.ascontiguousarray(rows).view(kind)
    return not bool(((bits & kind(exponent)) == kind(exponent)).any())


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

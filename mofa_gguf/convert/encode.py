"""Rows of a tensor in the checkpoint to bytes of the GGUF file. Runs in worker threads."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mofa_gguf.convert.errors import BadTensor
from mofa_gguf.convert.plan import PlannedTensor
from mofa_gguf.convert.safetensors_file import FLOAT_TYPES
from mofa_gguf.convert.weights import is_finite, to_float32
from mofa_gguf.engine.quantize import NotRepresentable, quantize_rows

_HALVES = ("F16", "BF16")


def encode_rows(tensor: PlannedTensor, start: int, stop: int) -> npt.NDArray[np.uint8]:
    """Rows ``start`` to ``stop`` as they stand in the file.

    Rows that are stored in the target's type already are copied as they are. Raises BadTensor
    for NaN and infinity, and for values beyond the range of the target's type.
    """
    weights = tensor.weights
    rows = weights.read(start, stop)
    # In halves whatever is not finite stays so, and they are looked through anyway.
    shows_itself = tensor.target.name in _HALVES and weights.dtype != tensor.target.name
    if not shows_itself and not is_finite(rows, weights.dtype):
        raise _damaged(tensor)
    if weights.dtype == tensor.target.name:
        return np.ascontiguousarray(rows).view(np.uint8)
    try:
        values = to_float32(rows, weights.dtype)
        if weights.dtype not in FLOAT_TYPES and not is_finite(values, "F32"):
            raise _bad(tensor, "holds NaN or infinity; the file is damaged")
        if tensor.importance is None:
            return quantize_rows(values, tensor.target)
        return _with_importance(tensor, tensor.importance, values, start)
    except NotRepresentable as error:
        if shows_itself and not is_finite(rows, weights.dtype):
            raise _damaged(tensor) from error
        problem = f"holds values too large for {error.type_name}; use BF16 or F32"
        raise _bad(tensor, problem) from error


def _with_importance(
    tensor: PlannedTensor,
    importance: npt.NDArray[np.float32],
    values: npt.NDArray[np.float32],
    start: int,
) -> npt.NDArray[np.uint8]:
    """Each matrix of a stack has weights of its own."""
    n_rows = tensor.weights.n_rows // len(importance)
    pieces, done = [], 0
    while done < len(values):
        matrix, row = divmod(start + done, n_rows)
        stop = min(done + n_rows - row, len(values))
        pieces.append(quantize_rows(values[done:stop], tensor.target, importance[matrix]))
        done = stop
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)


def _damaged(tensor: PlannedTensor) -> BadTensor:
    return _bad(tensor, "holds NaN or infinity; the checkpoint is damaged")


def _bad(tensor: PlannedTensor, problem: str) -> BadTensor:
    weights = tensor.weights
    source = weights.sources[0] if weights.sources else tensor.name
    return BadTensor(weights.origin or "computed", source, problem)

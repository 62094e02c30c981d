"""Rows of a tensor in the checkpoint to bytes of the GGUF file. Runs in worker threads."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mofa_gguf.convert.errors import BadTensor
from mofa_gguf.convert.plan import PlannedTensor
from mofa_gguf.convert.weights import is_finite, to_float32
from mofa_gguf.engine.quantize import NotRepresentable, quantize_rows


def encode_rows(tensor: PlannedTensor, start: int, stop: int) -> npt.NDArray[np.uint8]:
    """Rows ``start`` to ``stop`` as they stand in the file.

    Rows that are stored in the target's type already are copied as they are. Raises BadTensor
    for NaN and infinity, and for values beyond the range of the target's type.
    """
    weights = tensor.weights
    rows = weights.read(start, stop)
    if not is_finite(rows, weights.dtype):
        raise _bad(tensor, "holds NaN or infinity; the checkpoint is damaged")
    if weights.dtype == tensor.target.name:
        return np.ascontiguousarray(rows).view(np.uint8)
    try:
        return quantize_rows(to_float32(rows, weights.dtype), tensor.target)
    except NotRepresentable as error:
        problem = f"holds values too large for {error.type_name}; use BF16 or F32"
        raise _bad(tensor, problem) from error


def _bad(tensor: PlannedTensor, problem: str) -> BadTensor:
    weights = tensor.weights
    source = weights.sources[0] if weights.sources else tensor.name
    return BadTensor(weights.origin or "computed", source, problem)

"""Weights stored as 8-bit floats with a scale a block, turned into float32 while they stream.

DeepSeek-V3 and transformers' FineGrainedFP8 store ``NAME`` as F8_E4M3 and ``NAME_scale_inv`` with
one factor for each block of rows and columns (``weight_block_size`` in ``quantization_config``).
A weight is its 8-bit value times its block's factor, rounded once, to float32.
E4M3: OCP 8-bit Floating Point Specification 1.0, table 1.
"""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from mofa_gguf.convert.checkpoint import Checkpoint
from mofa_gguf.convert.errors import BadTensor
from mofa_gguf.convert.weights import Rows, Weights, stored, to_float32

_SCALE_SUFFIX = "_scale_inv"
_DEFAULT_BLOCK = (128, 128)


@functools.lru_cache(maxsize=1)
def e4m3_values() -> npt.NDArray[np.float32]:
    """The value of each of the 256 codes; two of them are NaN, none is infinite."""
    codes = np.arange(256)
    exponents, mantissas = (codes >> 3) & 15, codes & 7
    normal = np.ldexp(1 + mantissas / 8, exponents - 7)
    values = np.where(exponents > 0, normal, np.ldexp(mantissas / 8, -6))
    values[(codes & 0x7F) == 0x7F] = np.nan
    return np.where(codes & 0x80, -values, values).astype(np.float32)


def read_stored(checkpoint: Checkpoint, name: str) -> Weights:
    """A tensor of the checkpoint; one with a scale a block comes as float32.

    Raises BadTensor where the scales do not fit the tensor.
    """
    weights = stored(checkpoint, name)
    scale_name = name + _SCALE_SUFFIX
    if weights.dtype != "F8_E4M3" or scale_name not in checkpoint.tensors:
        return weights
    block = _block_size(checkpoint)
    scales = stored(checkpoint, scale_name)
    expected = tuple(-(-size // step) for size, step in zip(weights.shape, block, strict=False))
    if len(weights.shape) != 2 or scales.shape != expected:
        raise BadTensor(
            checkpoint.file_of(scale_name),
            scale_name,
            f"has the shape {list(scales.shape)}; for {name!r:.100} of shape "
            f"{list(weights.shape)} in blocks of {list(block)} it must be {list(expected)}",
        )
    return _scaled(weights, scales, block)


def _block_size(checkpoint: Checkpoint) -> tuple[int, int]:
    section = checkpoint.config.section("quantization_config")
    found = section.values.get("weight_block_size") if section is not None else None
    if section is None or found is None:
        return _DEFAULT_BLOCK
    if (
        not isinstance(found, list)
        or len(found) != 2
        or not all(isinstance(size, int) and 0 < size < 2**31 for size in found)
    ):
        raise section.fail("weight_block_size", f"must be two sizes, not {found!r:.60}")
    return found[0], found[1]


def _scaled(weights: Weights, scales: Weights, block: tuple[int, int]) -> Weights:
    row_step, column_step = block

    def read(start: int, stop: int) -> Rows:
        values = e4m3_values()[weights.read(start, stop)]
        first = start // row_step
        factors = to_float32(scales.read(first, (stop - 1) // row_step + 1), scales.dtype)
        rows = np.arange(start, stop) // row_step - first
        # One factor a row and column block, repeated over the columns of the block.
        values *= np.repeat(factors, column_step, axis=1)[:, : values.shape[1]][rows]
        return values

    def release() -> None:
        weights.release()
        scales.release()

    sources = (*weights.sources, *scales.sources)
    return replace(weights, dtype="F32", read=read, sources=sources, release=release)

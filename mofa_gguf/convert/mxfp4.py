"""Four-bit blocks (MXFP4) from a checkpoint's layout to ggml's, bit for bit.

A block is 32 values of E2M1 and one scale of E8M0 (OCP Microscaling Formats 1.0). Checkpoints keep
``NAME_blocks`` (16 bytes a block, values 2j and 2j+1 in byte j, the first in the low half) and
``NAME_scales``; ggml's ``block_mxfp4`` (ggml/src/ggml-common.h) is the scale and 16 bytes with
values j and j+16 in byte j. Nothing is rounded.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mofa_gguf.convert.checkpoint import Checkpoint
from mofa_gguf.convert.errors import BadTensor
from mofa_gguf.convert.weights import Rows, Weights, stored

BLOCK_VALUES = 32
_BLOCK_BYTES = 16
_NOT_A_NUMBER = 0xFF  # of E8M0


def read_mxfp4(checkpoint: Checkpoint, blocks_name: str, scales_name: str) -> Weights:
    """A tensor of four-bit blocks; its rows are bytes as ggml has them.

    Raises BadTensor where blocks and scales do not fit, or a scale is no number.
    """
    if scales_name not in checkpoint.tensors:
        raise BadTensor(
            checkpoint.folder, scales_name, f"is missing; {blocks_name!r:.100} needs it"
        )
    blocks, scales = stored(checkpoint, blocks_name), stored(checkpoint, scales_name)
    *shape, n_bytes = blocks.shape
    types = (blocks.dtype, scales.dtype)
    if types != ("U8", "U8") or n_bytes != _BLOCK_BYTES or scales.shape != tuple(shape):
        raise BadTensor(
            checkpoint.file_of(scales_name),
            scales_name,
            f"of shape {list(scales.shape)} does not fit the blocks of shape {list(blocks.shape)}",
        )

    *shape, n_blocks = shape

    def read(start: int, stop: int) -> Rows:
        # A row of the tensor is n_blocks rows of the blocks.
        codes = blocks.read(start * n_blocks, stop * n_blocks)
        factors = scales.read(start, stop)
        if (factors == _NOT_A_NUMBER).any():
            raise BadTensor(checkpoint.file_of(scales_name), scales_name, "holds NaN")
        repacked = np.empty((stop - start, n_blocks, 1 + _BLOCK_BYTES), dtype=np.uint8)
        repacked[:, :, 0] = factors
        repacked[:, :, 1:] = _halves_apart(codes).reshape(stop - start, n_blocks, _BLOCK_BYTES)
        return repacked.reshape(stop - start, -1)

    def release() -> None:
        blocks.release()
        scales.release()

    return Weights(
        (*shape, n_blocks * BLOCK_VALUES),
        "MXFP4",
        read,
        (blocks_name, scales_name),
        blocks.origin,
        release,
    )


def _halves_apart(codes: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    values = np.empty((*codes.shape[:-1], BLOCK_VALUES), dtype=np.uint8)
    values[..., 0::2] = codes & 0x0F
    values[..., 1::2] = codes >> 4
    packed: npt.NDArray[np.uint8] = values[..., :16] | values[..., 16:] << 4
    return packed

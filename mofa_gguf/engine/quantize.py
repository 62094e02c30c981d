"""llama.cpp's quantization kernels, callable from any number of Python threads.

The bytes are those of llama.cpp's own quantizer, because it is the same function
(``ggml_quantize_chunk``); ctypes releases the GIL while it runs. Types that need an importance
matrix cannot be made here.
"""

from __future__ import annotations

import ctypes
import functools
from typing import Any

import numpy as np
import numpy.typing as npt

from mofa_gguf.engine.errors import EngineError, InvalidOption
from mofa_gguf.engine.native import ggml
from mofa_gguf.engine.tensor_types import TensorType

# The types that can be made, and where each block of them holds what can become infinite: byte
# offsets of its float16 scales (block_* structures in ggml/src/ggml-common.h). The others need an
# importance matrix or have no kernel, and ggml would end the process.
_SCALES: dict[str, tuple[int, ...]] = {
    "F32": (), "F16": (0,), "BF16": (0,),
    "Q4_0": (0,), "Q4_1": (0, 2), "Q5_0": (0,), "Q5_1": (0, 2), "Q8_0": (0,),
    "Q2_K": (80, 82), "Q3_K": (108,), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,),
    "IQ4_NL": (0,), "IQ4_XS": (0,), "IQ3_S": (0,), "TQ1_0": (52,), "TQ2_0": (64,),
}  # fmt: skip
_FLOAT16_EXPONENT, _BFLOAT16_EXPONENT = 0x7C00, 0x7F80


class NotRepresentable(EngineError):
    """Finite values became infinite or NaN in the target type."""

    def __init__(self, type_name: str) -> None:
        super().__init__(f"the values are too large for {type_name}; use BF16 or F32")
        self.type_name = type_name


@functools.lru_cache(maxsize=1)
def _library() -> ctypes.CDLL:
    library = ggml()
    library.ggml_quantize_chunk.argtypes = [
        ctypes.c_int,  # enum ggml_type
        ctypes.c_void_p,  # const float * src
        ctypes.c_void_p,  # void * dst
        ctypes.c_int64,  # first element
        ctypes.c_int64,  # rows
        ctypes.c_int64,  # elements a row
        ctypes.c_void_p,  # const float * imatrix
    ]
    library.ggml_quantize_chunk.restype = ctypes.c_size_t
    library.ggml_blck_size.argtypes = [ctypes.c_int]
    library.ggml_blck_size.restype = ctypes.c_int64
    library.ggml_type_size.argtypes = [ctypes.c_int]
    library.ggml_type_size.restype = ctypes.c_size_t
    library.ggml_type_name.argtypes = [ctypes.c_int]
    library.ggml_type_name.restype = ctypes.c_char_p
    return library


def library_type(type_id: int) -> tuple[str, int, int]:
    """Name, elements a block and bytes a block of a type, as the loaded ggml has them."""
    library = _library()
    name: bytes = library.ggml_type_name(type_id)
    return name.decode(), library.ggml_blck_size(type_id), library.ggml_type_size(type_id)


def can_quantize_to(target: TensorType) -> bool:
    """Whether :func:`quantize_rows` makes this type."""
    return target.name in _SCALES


def quantize_rows(values: npt.NDArray[np.float32], target: TensorType) -> npt.NDArray[np.uint8]:
    """Rows of float32 as rows of ``target``: uint8 of shape (rows, bytes a row).

    ``values`` is a finite matrix whose rows are whole blocks of ``target``. F16 and BF16 are
    rounded to nearest, ties to even.
    Raises InvalidOption for a type that cannot be made without an importance matrix, ValueError
    for rows that are no whole blocks, NotRepresentable where a value is beyond the type's range.
    """
    if not can_quantize_to(target):
        raise InvalidOption("type", f"{target.name} cannot be quantized to without a matrix")
    n_rows, n_columns = values.shape
    source = np.require(values, dtype=np.float32, requirements=["C", "A"])
    result = np.empty((n_rows, target.row_bytes(n_columns)), dtype=np.uint8)
    if n_rows:
        _library().ggml_quantize_chunk(
            target.id, source.ctypes.data, result.ctypes.data, 0, n_rows, n_columns, None
        )
        _check(result, target)
    return result


def _check(rows: npt.NDArray[np.uint8], target: TensorType) -> None:
    """What ggml_validate_row_data checks, without its output on standard error."""
    blocks = rows.reshape(-1, target.n_block_bytes)
    exponent = _BFLOAT16_EXPONENT if target.name == "BF16" else _FLOAT16_EXPONENT
    for offset in _SCALES[target.name]:
        field: npt.NDArray[Any] = np.ascontiguousarray(blocks[:, offset : offset + 2])
        if ((field.view(np.uint16) & exponent) == exponent).any():
            raise NotRepresentable(target.name)

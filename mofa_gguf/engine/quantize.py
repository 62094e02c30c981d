"""llama.cpp's quantization kernels, callable from any number of Python threads.

The bytes are those of llama.cpp's own quantizer, because it is the same function
(``ggml_quantize_chunk``); ctypes releases the GIL while it runs. The way back, to float32, is
ggml's as well.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from mofa_gguf.engine.errors import EngineError, InvalidOption
from mofa_gguf.engine.files.tensor_types import TYPES_BY_NAME, TensorType
from mofa_gguf.engine.native import ggml

# The types that can be made, and where each block of them holds what can become infinite: byte
# offsets of its float16 scales (block_* structures in ggml/src/ggml-common.h). The others have no
# kernel, and ggml would end the process. MXFP4 and NVFP4 have 8-bit scales, which saturate.
_SCALES: dict[str, tuple[int, ...]] = {
    "F32": (), "F16": (0,), "BF16": (0,),
    "Q1_0": (0,), "Q2_0": (0,),
    "Q4_0": (0,), "Q4_1": (0, 2), "Q5_0": (0,), "Q5_1": (0, 2), "Q8_0": (0,),
    "Q2_K": (80, 82), "Q3_K": (108,), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,),
    "IQ1_S": (0,), "IQ1_M": (), "IQ2_XXS": (0,), "IQ2_XS": (0,), "IQ2_S": (0,),
    "IQ3_XXS": (0,), "IQ3_S": (0,), "IQ4_NL": (0,), "IQ4_XS": (0,),
    "TQ1_0": (52,), "TQ2_0": (64,), "MXFP4": (), "NVFP4": (),
}  # fmt: skip
# Kernels that fail without importance weights (ggml_quantize_requires_imatrix in ggml.c).
_NEEDS_IMPORTANCE = frozenset(("IQ2_XXS", "IQ2_XS", "IQ1_S"))
# Kernels that look for the nearest point of a grid, and end the process where sums overflow.
_GRIDS = frozenset(("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S"))
_VALUES_IN_A_SUM, _LARGEST_SUM = 256, 1e37
_FLOAT16_EXPONENT, _BFLOAT16_EXPONENT, _SIGN = 0x7C00, 0x7F80, 0x8000
_E8M0_NAN = 0xFF


class NotRepresentable(EngineError):
    """Finite values became infinite or NaN in the target type."""

    def __init__(self, type_name: str) -> None:
        super().__init__(f"the values are too large for {type_name}; use BF16 or F32")
        self.type_name = type_name


class _TypeTraits(ctypes.Structure):
    """``struct ggml_type_traits`` (ggml/include/ggml.h)."""

    _fields_ = (
        ("type_name", ctypes.c_char_p),
        ("blck_size", ctypes.c_int64),
        ("blck_size_interleave", ctypes.c_int64),
        ("type_size", ctypes.c_size_t),
        ("is_quantized", ctypes.c_bool),
        ("to_float", ctypes.c_void_p),
        ("from_float_ref", ctypes.c_void_p),
    )


_TO_FLOAT = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)


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
    library.ggml_get_type_traits.argtypes = [ctypes.c_int]
    library.ggml_get_type_traits.restype = ctypes.POINTER(_TypeTraits)
    return library


def load_kernels() -> None:
    """Load ggml, on this thread: what is called here later imports nothing.

    Raises LibraryUnavailable.
    """
    _library()


def library_type(type_id: int) -> tuple[str, int, int]:
    """Name, elements a block and bytes a block of a type, as the loaded ggml has them."""
    library = _library()
    name: bytes = library.ggml_type_name(type_id)
    return name.decode(), library.ggml_blck_size(type_id), library.ggml_type_size(type_id)


def can_quantize_to(target: TensorType) -> bool:
    """Whether :func:`quantize_rows` makes this type, if need be with importance weights."""
    return target.name in _SCALES


def producible_types() -> tuple[TensorType, ...]:
    """Every type that :func:`quantize_rows` makes."""
    return tuple(TYPES_BY_NAME[name] for name in _SCALES)


def needs_importance(target: TensorType) -> bool:
    """Whether the kernel cannot work without importance weights."""
    return target.name in _NEEDS_IMPORTANCE


def quantize_rows(
    values: npt.NDArray[np.float32],
    target: TensorType,
    importance: npt.NDArray[np.float32] | None = None,
) -> npt.NDArray[np.uint8]:
    """Rows of float32 as rows of ``target``: uint8 of shape (rows, bytes a row).

    ``values`` is a finite matrix whose rows are whole blocks of ``target``; ``importance`` has a
    weight for each column, finite and not negative. F16 and BF16 are rounded to nearest, ties to
    even.
    Raises InvalidOption for a type that cannot be made (so), ValueError for rows that are no whole
    blocks, NotRepresentable where a value is beyond the type's range.
    """
    if not can_quantize_to(target):
        raise InvalidOption("type", f"{target.name} cannot be quantized to")
    if importance is None and needs_importance(target):
        raise InvalidOption("type", f"{target.name} cannot be made without importance weights")
    n_rows, n_columns = values.shape
    if importance is not None and importance.shape != (n_columns,):
        raise ValueError(f"{importance.shape} weights for rows of {n_columns} elements")
    source = np.require(values, dtype=np.float32, requirements=["C", "A"])
    if target.name in _GRIDS and _overflows(source, importance):
        raise NotRepresentable(target.name)
    result = np.empty((n_rows, target.row_bytes(n_columns)), dtype=np.uint8)
    if n_rows:
        weights = None
        if importance is not None:
            importance = np.require(importance, dtype=np.float32, requirements=["C", "A"])
            weights = importance.ctypes.data
        halve = _float16_rounding() if target.name == "F16" else None
        if halve is not None:
            halve(source.ctypes.data, result.ctypes.data, source.size)
        else:
            _library().ggml_quantize_chunk(
                target.id, source.ctypes.data, result.ctypes.data, 0, n_rows, n_columns, weights
            )
        _check(result, target)
    return result


@functools.lru_cache(maxsize=1)
def _float16_rounding() -> Callable[[int, int, int], None] | None:
    """The processor's own rounding to float16, where this build of ggml has it by name.

    Seven times as fast as ggml_quantize_chunk, with the same bits for all floats but NaN (all 2^32
    were compared).
    """
    function = getattr(_library(), "ggml_cpu_fp32_to_fp16", None)
    if function is not None:
        function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64]
        function.restype = None
    found: Callable[[int, int, int], None] | None = function
    return found


def _overflows(values: npt.NDArray[np.float32], importance: npt.NDArray[np.float32] | None) -> bool:
    """Whether a kernel's sums may leave float32: weights times powers of values, four at most."""
    peak = float(np.abs(values).max(initial=0.0))
    weight = peak if importance is None else float(importance.max(initial=0.0))
    return peak**3 * max(weight, 1.0) * _VALUES_IN_A_SUM > _LARGEST_SUM


def dequantize_rows(rows: npt.NDArray[np.uint8], source: TensorType) -> npt.NDArray[np.float32]:
    """Rows of blocks, uint8 of shape (rows, bytes a row), as float32.

    Raises InvalidOption for a type that ggml cannot turn back, ValueError for rows that are no
    whole blocks.
    """
    n_rows, n_bytes = rows.shape
    if n_bytes % source.n_block_bytes:
        raise ValueError(f"{n_bytes} bytes are no whole blocks of {source.name}")
    data = np.require(rows, dtype=np.uint8, requirements=["C"])
    result = np.empty((n_rows, n_bytes // source.n_block_bytes * source.block_size), np.float32)
    _to_float(source.id)(data.ctypes.data, result.ctypes.data, result.size)
    return result


def can_dequantize(source: TensorType) -> bool:
    """Whether :func:`dequantize_rows` takes this type: blocks, for which ggml has the way back."""
    return bool(
        source.block_size > 1 and _library().ggml_get_type_traits(source.id).contents.to_float
    )


@functools.cache
def _to_float(type_id: int) -> Callable[[int, int, int], None]:
    traits = _library().ggml_get_type_traits(type_id).contents
    if not traits.is_quantized or not traits.to_float:
        name: bytes = traits.type_name
        raise InvalidOption("type", f"{name.decode().upper()} cannot be turned back into floats")
    return _TO_FLOAT(traits.to_float)


def _check(rows: npt.NDArray[np.uint8], target: TensorType) -> None:
    """What ggml_validate_row_data checks, without its output on standard error."""
    blocks = rows.reshape(-1, target.n_block_bytes)
    if target.name == "MXFP4":
        if (blocks[:, 0] == _E8M0_NAN).any():
            raise NotRepresentable(target.name)
        return
    exponent = _BFLOAT16_EXPONENT if target.name == "BF16" else _FLOAT16_EXPONENT
    for scales in _scales(blocks, target):
        # As signed numbers the positive ones are in order, as unsigned numbers the negative ones.
        if (
            scales.view(np.int16).max(initial=0) >= exponent
            or scales.max(initial=0) >= exponent | _SIGN
        ):
            raise NotRepresentable(target.name)


def _scales(blocks: npt.NDArray[np.uint8], target: TensorType) -> list[npt.NDArray[Any]]:
    """The blocks' 16-bit scales, as bits."""
    if target.name == "IQ1_M":
        # One scale, a quarter of it in the upper bits of each of the last four 16-bit words.
        words = np.ascontiguousarray(blocks[:, 48:]).view(np.uint16) >> 12
        return [words[:, 0] | words[:, 1] << 4 | words[:, 2] << 8 | words[:, 3] << 12]
    return [
        np.ascontiguousarray(blocks[:, offset : offset + 2]).view(np.uint16)
        for offset in _SCALES[target.name]
    ]

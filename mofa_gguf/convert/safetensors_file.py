"""One safetensors file: its header checked, its tensors mapped into memory.

Format: https://github.com/huggingface/safetensors#format - eight bytes header length, a JSON
header, then one buffer without gaps. The header is checked here, before anything reads the
buffer, because sizes in it decide what is mapped and allocated.
"""

from __future__ import annotations

import json
import math
import mmap
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mofa_gguf.convert.errors import BadTensor, CheckpointError

MAX_HEADER_BYTES = 32 * 1024 * 1024
"""Largest header that is read. Real ones stay under 10 MB; the format allows 100 MB."""
MAX_DIMENSIONS = 8

# Every dtype of the format, in bits (safetensors/src/tensor.rs, Dtype).
DTYPE_BITS: Mapping[str, int] = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8,
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16,
    "I32": 32, "U32": 32, "F32": 32,
    "I64": 64, "U64": 64, "F64": 64, "C64": 64,
}  # fmt: skip

# How numpy holds the types that weights come in. It has no bfloat16: the bits are kept.
_FLOATS: Mapping[str, str] = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
FLOAT_TYPES = tuple(_FLOATS)
# Weights of 4 and 8 bits, which mean something only together with their scales.
_NUMPY: Mapping[str, str] = {**_FLOATS, "F8_E4M3": "u1", "U8": "u1"}


class StoredTensor(NamedTuple):
    """A tensor's place: ``start`` and ``stop`` are byte offsets from the file's beginning."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int

    @property
    def n_elements(self) -> int:
        """Product of the shape."""
        return math.prod(self.shape)

    @property
    def n_bytes(self) -> int:
        """Bytes in the file."""
        return self.stop - self.start


class SafetensorsFile:
    """An open safetensors file. Raises CheckpointError or BadTensor where it breaks the format.

    The file stays mapped until :meth:`close`; arrays handed out before keep the mapping alive.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.header, self.tensors = _read_header(path)
        self._map: mmap.mmap | None = None

    @property
    def n_bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.n_bytes for tensor in self.tensors.values())

    def array(self, name: str) -> npt.NDArray[Any]:
        """The tensor as a read-only view of the file, in its shape; nothing is read yet.

        BF16 comes as the 16-bit patterns (uint16), F8_E4M3 as 8-bit ones (uint8). Other types than
        floats and U8 cannot be asked for: BadTensor.
        """
        tensor = self.tensors[name]
        if tensor.dtype not in _NUMPY:
            raise BadTensor(
                self.path,
                name,
                f"has the type {tensor.dtype}; weights must be {', '.join(FLOAT_TYPES)}",
            )
        if self._map is None:
            self._map = _map_file(self.path)
        try:
            flat = np.frombuffer(
                self._map, dtype=_NUMPY[tensor.dtype], count=tensor.n_elements, offset=tensor.start
            )
        except ValueError as error:
            raise CheckpointError(self.path, "was shortened while it was open") from error
        return flat.reshape(tensor.shape)

    def release(self, name: str) -> None:
        """Tell the system that the tensor's pages are no longer needed in memory."""
        if self._map is None or not hasattr(mmap, "MADV_DONTNEED"):
            return
        tensor = self.tensors[name]
        start = -(-tensor.start // mmap.PAGESIZE) * mmap.PAGESIZE
        stop = tensor.stop // mmap.PAGESIZE * mmap.PAGESIZE
        if stop > start:
            self._map.madvise(mmap.MADV_DONTNEED, start, stop - start)

    def close(self) -> None:
        """Forget the mapping; may be called twice."""
        # Views may still point into it, so it is dropped and not closed.
        self._map = None


def _map_file(path: Path) -> mmap.mmap:
    try:
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        raise CheckpointError(path, f"cannot be mapped into memory ({error})") from error


def _read_header(path: Path) -> tuple[bytes, dict[str, StoredTensor]]:
    """The header's bytes and the tensors by name."""
    try:
        if not path.is_file():
            raise CheckpointError(path, "is missing or no regular file")
        file_size = path.stat().st_size
        with path.open("rb") as file:
            length_field = file.read(8)
            if len(length_field) < 8:
                raise CheckpointError(path, f"has {file_size} bytes and is no safetensors file")
            (length,) = struct.unpack("<Q", length_field)
            if length > file_size - 8:
                raise CheckpointError(
                    path,
                    f"says that its header has {length} bytes, but only {file_size - 8} follow; "
                    "it is truncated or no safetensors file",
                )
            if length > MAX_HEADER_BYTES:
                raise CheckpointError(
                    path, f"has a header of {length} bytes; at most {MAX_HEADER_BYTES} are read"
                )
            header = file.read(length)
    except OSError as error:
        raise CheckpointError(path, f"cannot be read ({error.strerror})") from error
    buffer_start = 8 + length
    tensors = [
        _parse_tensor(path, name, entry, buffer_start)
        for name, entry in _parse_json(path, header).items()
        if name != "__metadata__"
    ]
    _check_layout(path, tensors, buffer_start, file_size)
    return header, {tensor.name: tensor for tensor in tensors}


def _parse_json(path: Path, header: bytes) -> dict[str, object]:
    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        result = dict(pairs)
        if len(result) != len(pairs):
            raise ValueError("a name occurs twice")
        return result

    try:
        value = json.loads(header.decode("utf-8"), object_pairs_hook=unique)
    except RecursionError as error:
        raise CheckpointError(path, "has a header that is nested too deeply") from error
    except ValueError as error:
        raise CheckpointError(path, f"has a header that is no valid JSON ({error})") from error
    if not isinstance(value, dict):
        raise CheckpointError(path, "has a header that is no JSON object")
    return value


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _parse_tensor(path: Path, name: str, entry: object, buffer_start: int) -> StoredTensor:
    if not isinstance(entry, dict):
        raise BadTensor(path, name, "has no description")
    dtype, shape, offsets = (entry.get(key) for key in ("dtype", "shape", "data_offsets"))
    if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
        raise BadTensor(path, name, f"has the unknown type {dtype!r:.40}")
    if (
        not isinstance(shape, list)
        or len(shape) > MAX_DIMENSIONS
        or not all(_is_count(size) for size in shape)
    ):
        raise BadTensor(path, name, f"has the impossible shape {shape!r:.80}")
    if (
        not isinstance(offsets, list)
        or len(offsets) != 2
        or not all(_is_count(offset) for offset in offsets)
    ):
        raise BadTensor(path, name, f"has the impossible offsets {offsets!r:.80}")
    start, stop = offsets
    n_bits = math.prod(shape) * DTYPE_BITS[dtype]
    if (stop - start) * 8 != n_bits:
        raise BadTensor(
            path,
            name,
            f"spans {stop - start} bytes, but {dtype} of shape {shape} takes {n_bits / 8:g}",
        )
    return StoredTensor(name, dtype, tuple(shape), buffer_start + start, buffer_start + stop)


def _check_layout(
    path: Path, tensors: list[StoredTensor], buffer_start: int, file_size: int
) -> None:
    """The tensors must cover the buffer exactly, as the format demands."""
    position = buffer_start
    for tensor in sorted(tensors, key=lambda tensor: (tensor.start, tensor.stop)):
        if tensor.start < position:
            raise BadTensor(path, tensor.name, "overlaps another tensor")
        if tensor.start > position:
            raise BadTensor(path, tensor.name, "comes after a gap in the file")
        if tensor.stop > file_size:
            raise BadTensor(
                path,
                tensor.name,
                f"ends at byte {tensor.stop}, but the file has {file_size}; it is truncated",
            )
        position = tensor.stop
    if position != file_size:
        raise CheckpointError(path, f"has {file_size - position} bytes behind its last tensor")

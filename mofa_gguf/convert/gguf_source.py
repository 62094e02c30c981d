"""GGUF files as a source of tensors: one file, or a set of parts read as one.

Headers are checked by :mod:`mofa_gguf.engine.files.header` before anything is taken from them;
tensors are read a few rows at a time from the mapped files.
"""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from mofa_gguf.convert.errors import BadTensor, CheckpointError
from mofa_gguf.convert.families.base import NamedWeights
from mofa_gguf.convert.metadata import Metadata
from mofa_gguf.convert.parts import SPLIT_KEYS, beside, number_of_part
from mofa_gguf.convert.weights import Rows, Weights
from mofa_gguf.engine.errors import ModelFileError, OutOfMemory
from mofa_gguf.engine.files.header import ArraySummary, GGUFHeader, TensorInfo, read_header

# gguf.h, enum gguf_type: bytes of the values of fixed size.
_SIZES: Mapping[int, int] = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_STRING, _ARRAY = 8, 9

# Elements that are numbers by themselves. BF16 comes as bits, and so does all that is in blocks.
_NUMPY: Mapping[str, Any] = {
    "F32": np.float32, "F16": np.float16, "BF16": np.uint16, "F64": np.float64,
    "I8": np.int8, "I16": np.int16, "I32": np.int32, "I64": np.int64,
}  # fmt: skip


class GGUFSource:
    """An open GGUF file or set. Use as a context manager.

    ``header`` is the first part's, which has the metadata.
    """

    def __init__(self, headers: tuple[GGUFHeader, ...], maps: tuple[mmap.mmap, ...]) -> None:
        self.headers = headers
        self.maps = maps

    @property
    def header(self) -> GGUFHeader:
        """The first part's, which has the metadata."""
        return self.headers[0]

    @property
    def n_bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(header.n_tensor_bytes for header in self.headers)

    def metadata(self) -> Metadata:
        """All key-value pairs as they stand in the file, but those that say how it was divided."""
        metadata = Metadata()
        for key, encoded in _encoded_pairs(self.header, self.maps[0]):
            metadata.copied(key, encoded)
        # Written anew where they are needed: the parts' own, and an alignment that is not ours.
        for key in (*SPLIT_KEYS, "general.alignment"):
            metadata.remove(key)
        return metadata

    def tensors(self) -> list[NamedWeights]:
        """Every tensor, in the order of the parts and their headers."""
        return [
            NamedWeights(tensor.name, _weights(header, tensor, mapped))
            for header, mapped in zip(self.headers, self.maps, strict=True)
            for tensor in header.tensors
        ]

    def fingerprint(self) -> str:
        """SHA-256 (hex) over the headers and sizes of all parts, not the weights."""
        digest = hashlib.sha256()
        for header, mapped in zip(self.headers, self.maps, strict=True):
            digest.update(header.n_bytes.to_bytes(8, "little"))
            digest.update(mapped[: header.data_offset])
        return digest.hexdigest()

    def close(self) -> None:
        """Forget the files; may be called twice."""
        # Views may still point into the mappings, so they are dropped and not closed.
        self.maps = ()

    def __enter__(self) -> GGUFSource:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def read_headers(path: Path) -> tuple[GGUFHeader, ...]:
    """The header of a file, or of all parts of the set whose first part it is.

    Raises ModelFileError for a file that is no GGUF, and CheckpointError for a set that is not
    complete.
    """
    first = read_header(path)
    n_parts = first.metadata.get("split.count", 1)
    if not isinstance(n_parts, int) or n_parts <= 1:
        return (first,)
    if number_of_part(path) != (0, n_parts) or first.metadata.get("split.no") != 0:
        raise CheckpointError(
            path,
            f"is not the first of {n_parts} parts by its name and contents; give the file whose "
            f"name ends in -00001-of-{n_parts:05d}.gguf",
        )
    headers = [first]
    for i in range(1, n_parts):
        part = beside(path, i)
        if not part.exists():
            raise CheckpointError(part, f"is missing: part {i + 1} of {n_parts}")
        header = read_header(part)
        if (header.metadata.get("split.no"), header.metadata.get("split.count")) != (i, n_parts):
            raise CheckpointError(part, f"says that it is not part {i + 1} of {n_parts}")
        headers.append(header)
    names = [tensor.name for header in headers for tensor in header.tensors]
    total = first.metadata.get("split.tensors.count", len(names))
    if len(set(names)) != len(names) or total != len(names):
        raise CheckpointError(
            path, f"and its other parts have {len(set(names))} tensors, not {total}"
        )
    return tuple(headers)


def open_gguf(path: Path) -> GGUFSource:
    """Open a file or a set; only headers are read. Raises CheckpointError, BadTensor."""
    try:
        headers = read_headers(path)
    except ModelFileError as error:
        raise CheckpointError(error.path, error.problem) from error
    except OutOfMemory as error:
        raise CheckpointError(path, "cannot be read, since it cannot be mapped") from error
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(header.path.open("rb")) for header in headers]
        maps = [mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) for file in files]
    return GGUFSource(headers, tuple(maps))


def _weights(header: GGUFHeader, tensor: TensorInfo, mapped: mmap.mmap) -> Weights:
    shape = tensor.shape[::-1] or (1,)
    kind = tensor.type
    start = header.data_offset + tensor.offset
    n_rows, row = tensor.n_elements // shape[-1], shape[-1]
    dtype, columns = (
        (np.uint8, kind.row_bytes(row)) if kind.block_size > 1 else (_NUMPY[kind.name], row)
    )

    def read(low: int, high: int) -> Rows:
        count, size = (high - low) * columns, np.dtype(dtype).itemsize
        try:
            flat: npt.NDArray[Any] = np.frombuffer(
                mapped, dtype=dtype, count=count, offset=start + low * columns * size
            )
        except ValueError as error:
            raise BadTensor(header.path, tensor.name, "was cut off while it was read") from error
        return flat.reshape(high - low, columns)

    def release() -> None:
        if hasattr(mmap, "MADV_DONTNEED"):
            begin = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
            end = (start + tensor.n_bytes) // mmap.PAGESIZE * mmap.PAGESIZE
            if end > begin:
                mapped.madvise(mmap.MADV_DONTNEED, begin, end - begin)

    if not n_rows:
        raise BadTensor(header.path, tensor.name, "is empty")
    return Weights(shape, kind.name, read, (tensor.name,), header.path, release)


def _encoded_pairs(header: GGUFHeader, view: mmap.mmap) -> Iterator[tuple[str, bytes]]:
    """Key and encoded value of every pair of a file whose header this is."""
    (n_pairs,) = struct.unpack_from("<Q", view, 16)
    at = 24
    for _ in range(n_pairs):
        (length,) = struct.unpack_from("<Q", view, at)
        key = view[at + 8 : at + 8 + length].decode("utf-8", errors="surrogateescape")
        start = at + 8 + length
        value = header.metadata.get(key)
        at = value.end if isinstance(value, ArraySummary) else _end_of_value(view, start)
        yield key, view[start:at]


def _end_of_value(view: mmap.mmap, at: int) -> int:
    (kind,) = struct.unpack_from("<I", view, at)
    at, count = at + 4, 1
    if kind == _ARRAY:
        kind, count = struct.unpack_from("<IQ", view, at)
        at += 12
    if kind != _STRING:
        return at + count * _SIZES[kind]
    unpack = struct.Struct("<Q").unpack_from
    for _ in range(count):
        at += 8 + unpack(view, at)[0]
    return at

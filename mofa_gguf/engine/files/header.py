"""The header of a GGUF file, read and checked in pure Python.

Format: docs/gguf.md in ggml-org/ggml; the checks are those of ``gguf_init_from_file`` in
ggml/src/gguf.cpp, because llama.cpp ends the process on some of the files that fail them.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from mofa_gguf.engine.files.cursor import ArraySummary as ArraySummary
from mofa_gguf.engine.files.cursor import Cursor, mapped
from mofa_gguf.engine.files.tensor_types import REMOVED_TYPES, TYPES_BY_ID, TensorType

MAGIC = b"GGUF"
# The formats that GGUF replaced in 2023; their magic numbers, as little-endian bytes.
_BEFORE_GGUF = {b"lmgg": "GGML", b"fmgg": "GGMF", b"tjgg": "GGJT", b"algg": "GGLA"}
DEFAULT_ALIGNMENT = 32
_LEAST_BYTES = 24  # magic number, version and two counts
_MAX_NAME = 64  # GGML_MAX_NAME
_MAX_DIMENSIONS = 4  # GGML_MAX_DIMS


@dataclass(frozen=True)
class TensorInfo:
    """One tensor: shape with the fastest-varying dimension first, as GGUF stores it."""

    name: str
    shape: tuple[int, ...]
    type: TensorType
    offset: int
    """Bytes from the start of the file's tensor data."""

    @property
    def n_elements(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def n_bytes(self) -> int:
        """Bytes of the tensor's data."""
        return self.type.row_bytes(self.n_elements)


@dataclass(frozen=True)
class GGUFHeader:
    """What a GGUF file says of itself, without its weights."""

    path: Path
    version: int
    metadata: Mapping[str, Any]
    """Values by key; long arrays are :class:`ArraySummary`."""
    tensors: tuple[TensorInfo, ...]
    data_offset: int
    n_bytes: int
    """Size of the whole file."""
    types: Mapping[str, int] = field(default_factory=dict, compare=False)
    """The number of each value's type in the file (gguf.h, enum gguf_type)."""

    @property
    def architecture(self) -> str:
        """``general.architecture``, or an empty string."""
        value = self.metadata.get("general.architecture", "")
        return value if isinstance(value, str) else ""

    def hyperparameter(self, name: str, default: Any = None) -> Any:
        """The architecture's own value, e.g. ``context_length``."""
        return self.metadata.get(f"{self.architecture}.{name}", default)

    @cached_property
    def n_parameters(self) -> int:
        """Number of weights in all tensors."""
        return sum(t.n_elements for t in self.tensors)

    @cached_property
    def n_tensor_bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(t.n_bytes for t in self.tensors)


def read_header(path: Path | str) -> GGUFHeader:
    """Read and check the header of the GGUF file at ``path``.

    Raises ModelFileError, saying what is wrong, for a missing, empty, foreign, truncated or
    inconsistent file, and OutOfMemory where it cannot be mapped. Reads only the header; the time
    grows with the vocabulary (about 0.1 s for 100,000 tokens).
    """
    path = Path(path)
    with mapped(path, least_bytes=_LEAST_BYTES) as view:
        return _Reader(path, view).read()


class _Reader(Cursor):
    """Reads a header from its beginning."""

    def __init__(self, path: Path, view: mmap.mmap) -> None:
        super().__init__(path, view)
        self._types: dict[str, int] = {}

    def read(self) -> GGUFHeader:
        version = self._magic_and_version()
        n_tensors = self.count("tensors", least_bytes=24)
        n_pairs = self.count("metadata entries", least_bytes=13)
        metadata = self._metadata(n_pairs)
        alignment = self._alignment(metadata)
        tensors = self._tensors(n_tensors)
        data_offset = -(-self.at // alignment) * alignment
        self._check_layout(tensors, alignment, data_offset)
        return GGUFHeader(
            self._path, version, metadata, tensors, data_offset, self.end, self._types
        )

    def _magic_and_version(self) -> int:
        magic = self.take(4, "the magic number")
        if magic in _BEFORE_GGUF:
            raise self.fail(
                f"is in llama.cpp's format of before GGUF ({_BEFORE_GGUF[magic]}), which it reads "
                "no more; get the model as GGUF or convert its checkpoint"
            )
        if magic != MAGIC:
            raise self.fail("is no GGUF file: it does not begin with the letters GGUF")
        version: int = self.number("<I", 4, "the version")
        if version == 1:
            raise self.fail(
                "has GGUF version 1, which llama.cpp reads no more; convert the model again"
            )
        if version & 0xFFFF == 0 and version:
            raise self.fail("is a big-endian GGUF file, which cannot be used on this machine")
        if version not in (2, 3):
            raise self.fail(f"has GGUF version {version}; versions 2 and 3 can be read")
        return version

    def _metadata(self, n_pairs: int) -> dict[str, Any]:
        metadata: dict[str, Any] = {}
        for _ in range(n_pairs):
            key = self.string("a metadata key")
            if not key:
                raise self.fail("is damaged: a metadata entry has no name")
            if key in metadata:
                raise self.fail(f"is damaged: the metadata key {key!r} stands in it twice")
            type_id: int = self.number("<I", 4, f"the type of {key}")
            self._types[key] = type_id
            metadata[key] = self.value(type_id, key)
        return metadata

    def _alignment(self, metadata: Mapping[str, Any]) -> int:
        alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
        if not isinstance(alignment, int) or alignment <= 0 or alignment & (alignment - 1):
            raise self.fail(f"is damaged: its alignment is {alignment!r}, no power of two")
        return alignment

    def _tensors(self, count: int) -> tuple[TensorInfo, ...]:
        tensors: dict[str, TensorInfo] = {}
        for _ in range(count):
            info = self._tensor()
            if info.name in tensors:
                raise self.fail(f"is damaged: the tensor {info.name} stands in it twice")
            tensors[info.name] = info
        return tuple(tensors.values())

    def _tensor(self) -> TensorInfo:
        name = self.string("a tensor's name")
        if len(name.encode("utf-8", errors="surrogateescape")) >= _MAX_NAME:
            raise self.fail(f"is damaged: a tensor's name is longer than {_MAX_NAME - 1} bytes")
        n_dimensions: int = self.number("<I", 4, name)
        if n_dimensions > _MAX_DIMENSIONS:
            raise self.fail(f"is damaged: the tensor {name} has {n_dimensions} dimensions")
        data = self.take(8 * n_dimensions, name)
        shape: tuple[int, ...] = struct.unpack(f"<{n_dimensions}Q", data)
        type_id: int = self.number("<I", 4, name)
        offset: int = self.number("<Q", 8, name)
        kind = TYPES_BY_ID.get(type_id)
        if type_id in REMOVED_TYPES:
            raise self.fail(
                f"holds the tensor {name} as {REMOVED_TYPES[type_id]}, a format that llama.cpp has "
                "given up; get the model in another quantization (Q4_0 is repacked when loaded)"
            )
        if kind is None:
            raise self.fail(
                f"holds the tensor {name} in the type number {type_id}, which this version of "
                "llama.cpp cannot read; it needs a newer one (pip install -U llama-cpp-python), or "
                "convert the model again"
            )
        if 0 in shape:
            raise self.fail(f"is damaged: the tensor {name} is empty (its shape is {shape})")
        row = shape[0] if shape else 1
        if row % kind.block_size or math.prod(shape) >= 2**62:
            raise self.fail(f"is damaged: the shape {shape} of {name} cannot be {kind.name}")
        return TensorInfo(name, shape, kind, offset)

    def _check_layout(
        self, tensors: tuple[TensorInfo, ...], alignment: int, data_offset: int
    ) -> None:
        expected = 0
        for info in tensors:
            if info.offset != expected:
                raise self.fail(
                    f"is damaged: the tensor {info.name} lies at {info.offset}, not at {expected}"
                )
            if data_offset + expected + info.n_bytes > self.end:
                missing = data_offset + expected + info.n_bytes - self.end
                raise self.fail(
                    f"is truncated: the data of {info.name} ends {missing} bytes beyond the file; "
                    "copy or download it again"
                )
            expected += -(-info.n_bytes // alignment) * alignment

"""The header of a GGUF file, read and checked in pure Python.

Format: docs/gguf.md in ggml-org/ggml; the checks are those of ``gguf_init_from_file`` in
ggml/src/gguf.cpp, because llama.cpp ends the process on some of the files that fail them. Counts
and lengths are bounded by the file's size before anything is read or allocated.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from mofa_gguf.engine.errors import ModelFileError
from mofa_gguf.engine.files.tensor_types import REMOVED_TYPES, TYPES_BY_ID, TensorType

MAGIC = b"GGUF"
# The formats that GGUF replaced in 2023; their magic numbers, as little-endian bytes.
_BEFORE_GGUF = {b"lmgg": "GGML", b"fmgg": "GGMF", b"tjgg": "GGJT", b"algg": "GGLA"}
DEFAULT_ALIGNMENT = 32
MAX_KEPT_ARRAY = 256
"""Longer arrays (vocabularies, merges) are summarised, not kept."""
_MAX_PROBLEM = 300
_MAX_NAME = 64  # GGML_MAX_NAME
_MAX_DIMENSIONS = 4  # GGML_MAX_DIMS
_STRING, _ARRAY, _BOOL = 8, 9, 7

# gguf.h, enum gguf_type: struct format and size of the fixed-size values.
_SCALARS: dict[int, tuple[str, int]] = {
    0: ("<B", 1),
    1: ("<b", 1),
    2: ("<H", 2),
    3: ("<h", 2),
    4: ("<I", 4),
    5: ("<i", 4),
    6: ("<f", 4),
    _BOOL: ("<?", 1),
    10: ("<Q", 8),
    11: ("<q", 8),
    12: ("<d", 8),
}


@dataclass(frozen=True)
class ArraySummary:
    """Stands for an array too long to keep: its element type's number and its length."""

    type_id: int
    length: int
    offset: int = field(default=0, compare=False)
    """Where in the file its elements begin."""


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
    inconsistent file. Reads only the header; the time grows with the vocabulary (about 0.1 s for
    100,000 tokens).
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            if size < 24:
                raise ModelFileError(path, f"is no GGUF file: it has only {size} bytes")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
                return _Reader(path, view).read()
    except FileNotFoundError:
        raise ModelFileError(path, "there is no such file; check the path") from None
    except IsADirectoryError:
        raise ModelFileError(path, "is a folder, not a GGUF file") from None
    except OSError as error:
        raise ModelFileError(path, f"cannot be read ({error.strerror})") from error


class _Reader:
    """A cursor over the mapped file; every read is checked against the file's end."""

    def __init__(self, path: Path, view: mmap.mmap) -> None:
        self._path = path
        self._view = view
        self._end = len(view)
        self._at = 0
        self._types: dict[str, int] = {}

    def read(self) -> GGUFHeader:
        version = self._magic_and_version()
        n_tensors = self._count("tensors", least_bytes=24)
        n_pairs = self._count("metadata entries", least_bytes=13)
        metadata = self._metadata(n_pairs)
        alignment = self._alignment(metadata)
        tensors = self._tensors(n_tensors)
        data_offset = -(-self._at // alignment) * alignment
        self._check_layout(tensors, alignment, data_offset)
        return GGUFHeader(
            self._path, version, metadata, tensors, data_offset, self._end, self._types
        )

    def _fail(self, problem: str) -> ModelFileError:
        # Names come from the file: damaged ones may be long and full of control characters.
        shown = "".join(c if c.isprintable() else "?" for c in problem)
        if len(shown) > _MAX_PROBLEM:
            shown = f"{shown[: _MAX_PROBLEM // 2]} ... {shown[-_MAX_PROBLEM // 2 :]}"
        return ModelFileError(self._path, shown)

    def _take(self, n_bytes: int, what: str) -> bytes:
        if n_bytes > self._end - self._at:
            raise self._fail(f"is truncated or damaged: it ends inside {what}")
        data = self._view[self._at : self._at + n_bytes]
        self._at += n_bytes
        return data

    def _number(self, form: str, n_bytes: int, what: str) -> Any:
        return struct.unpack(form, self._take(n_bytes, what))[0]

    def _magic_and_version(self) -> int:
        magic = self._take(4, "the magic number")
        if magic in _BEFORE_GGUF:
            raise self._fail(
                f"is in llama.cpp's format of before GGUF ({_BEFORE_GGUF[magic]}), which it reads "
                "no more; get the model as GGUF or convert its checkpoint"
            )
        if magic != MAGIC:
            raise self._fail("is no GGUF file: it does not begin with the letters GGUF")
        version: int = self._number("<I", 4, "the version")
        if version == 1:
            raise self._fail(
                "has GGUF version 1, which llama.cpp reads no more; convert the model again"
            )
        if version & 0xFFFF == 0 and version:
            raise self._fail("is a big-endian GGUF file, which cannot be used on this machine")
        if version not in (2, 3):
            raise self._fail(f"has GGUF version {version}; versions 2 and 3 can be read")
        return version

    def _count(self, what: str, *, least_bytes: int) -> int:
        count: int = self._number("<Q", 8, "the header")
        if count * least_bytes > self._end:
            raise self._fail(f"is damaged: it claims {count} {what}")
        return count

    def _string(self, what: str) -> str:
        length: int = self._number("<Q", 8, what)
        # Vocabularies hold pieces that are no UTF-8 by themselves.
        return self._take(length, what).decode("utf-8", errors="surrogateescape")

    def _metadata(self, n_pairs: int) -> dict[str, Any]:
        metadata: dict[str, Any] = {}
        for _ in range(n_pairs):
            key = self._string("a metadata key")
            if not key:
                raise self._fail("is damaged: a metadata entry has no name")
            if key in metadata:
                raise self._fail(f"is damaged: the metadata key {key!r} stands in it twice")
            type_id: int = self._number("<I", 4, f"the type of {key}")
            self._types[key] = type_id
            metadata[key] = self._value(type_id, key)
        return metadata

    def _value(self, type_id: int, key: str) -> Any:
        if type_id == _STRING:
            return self._string(key)
        if type_id == _ARRAY:
            return self._array(key)
        if type_id in _SCALARS:
            form, n_bytes = _SCALARS[type_id]
            return self._number(form, n_bytes, key)
        raise self._fail(f"is damaged: {key} has the unknown value type {type_id}")

    def _array(self, key: str) -> list[Any] | ArraySummary:
        type_id: int = self._number("<I", 4, key)
        length: int = self._number("<Q", 8, key)
        start = self._at
        if type_id == _STRING:
            if length * 8 > self._end - self._at:
                raise self._fail(f"is truncated or damaged: {key} claims {length} strings")
            if length > MAX_KEPT_ARRAY:
                self._skip_strings(length, key)
                return ArraySummary(type_id, length, start)
            return [self._string(key) for _ in range(length)]
        if type_id not in _SCALARS:
            raise self._fail(f"is damaged: {key} is an array of the unknown type {type_id}")
        form, n_bytes = _SCALARS[type_id]
        if length * n_bytes > self._end - self._at:
            raise self._fail(f"is truncated or damaged: {key} claims {length} values")
        if length > MAX_KEPT_ARRAY:
            self._at += length * n_bytes
            return ArraySummary(type_id, length, start)
        data = self._take(length * n_bytes, key)
        return list(struct.unpack(f"<{length}{form[1]}", data))

    def _skip_strings(self, count: int, key: str) -> None:
        unpack: Callable[..., tuple[int]] = struct.Struct("<Q").unpack_from
        view, at, end = self._view, self._at, self._end
        for _ in range(count):
            if at + 8 > end:
                raise self._fail(f"is truncated or damaged: it ends inside {key}")
            at += 8 + unpack(view, at)[0]
        if at > end:
            raise self._fail(f"is truncated or damaged: it ends inside {key}")
        self._at = at

    def _alignment(self, metadata: Mapping[str, Any]) -> int:
        alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
        if not isinstance(alignment, int) or alignment <= 0 or alignment & (alignment - 1):
            raise self._fail(f"is damaged: its alignment is {alignment!r}, no power of two")
        return alignment

    def _tensors(self, count: int) -> tuple[TensorInfo, ...]:
        tensors: dict[str, TensorInfo] = {}
        for _ in range(count):
            info = self._tensor()
            if info.name in tensors:
                raise self._fail(f"is damaged: the tensor {info.name} stands in it twice")
            tensors[info.name] = info
        return tuple(tensors.values())

    def _tensor(self) -> TensorInfo:
        name = self._string("a tensor's name")
        if len(name.encode("utf-8", errors="surrogateescape")) >= _MAX_NAME:
            raise self._fail(f"is damaged: a tensor's name is longer than {_MAX_NAME - 1} bytes")
        n_dimensions: int = self._number("<I", 4, name)
        if n_dimensions > _MAX_DIMENSIONS:
            raise self._fail(f"is damaged: the tensor {name} has {n_dimensions} dimensions")
        data = self._take(8 * n_dimensions, name)
        shape: tuple[int, ...] = struct.unpack(f"<{n_dimensions}Q", data)
        type_id: int = self._number("<I", 4, name)
        offset: int = self._number("<Q", 8, name)
        kind = TYPES_BY_ID.get(type_id)
        if type_id in REMOVED_TYPES:
            raise self._fail(
                f"holds the tensor {name} as {REMOVED_TYPES[type_id]}, a format that llama.cpp has "
                "given up; get the model in another quantization (Q4_0 is repacked when loaded)"
            )
        if kind is None:
            raise self._fail(
                f"holds the tensor {name} in the type number {type_id}, which this version of "
                "llama.cpp cannot read; it needs a newer one (pip install -U llama-cpp-python), or "
                "convert the model again"
            )
        if 0 in shape:
            raise self._fail(f"is damaged: the tensor {name} is empty (its shape is {shape})")
        row = shape[0] if shape else 1
        if row % kind.block_size or math.prod(shape) >= 2**62:
            raise self._fail(f"is damaged: the shape {shape} of {name} cannot be {kind.name}")
        return TensorInfo(name, shape, kind, offset)

    def _check_layout(
        self, tensors: tuple[TensorInfo, ...], alignment: int, data_offset: int
    ) -> None:
        expected = 0
        for info in tensors:
            if info.offset != expected:
                raise self._fail(
                    f"is damaged: the tensor {info.name} lies at {info.offset}, not at {expected}"
                )
            if data_offset + expected + info.n_bytes > self._end:
                missing = data_offset + expected + info.n_bytes - self._end
                raise self._fail(
                    f"is truncated: the data of {info.name} ends {missing} bytes beyond the file; "
                    "copy or download it again"
                )
            expected += -(-info.n_bytes // alignment) * alignment

"""Importance matrices: how much each column of a weight matrix mattered on some text.

Files of llama.cpp's ``llama-imatrix``: GGUF (``NAME.in_sum2`` and ``NAME.counts`` for each tensor,
``imatrix.*`` keys) and the older .dat form. What is made of their numbers is what llama.cpp's
quantize tool makes of them (common/imatrix-loader.cpp, ``load_imatrix`` in
tools/quantize/quantize.cpp).
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mofa_gguf.convert.errors import ImportanceError
from mofa_gguf.convert.metadata import Metadata
from mofa_gguf.convert.roles import TOKEN_EMBEDDINGS
from mofa_gguf.engine.errors import ModelFileError
from mofa_gguf.engine.files.header import GGUFHeader, read_header

Matrix = npt.NDArray[np.float32]

MAX_WEIGHT = 1e25
_MAX_TEXT_BYTES = 127  # of a string in llama_model_kv_override, which the tool writes these with
_MAX_NAME_BYTES = 1024
_SUMS, _COUNTS = ".in_sum2", ".counts"


@dataclass(frozen=True)
class Importance:
    """An importance matrix: for each tensor's GGUF name a weight for each of its columns.

    Stacks of matrices (experts) have their columns' weights one matrix after the other.
    """

    path: Path
    entries: Mapping[str, Matrix]
    datasets: tuple[str, ...] = ()
    """The texts it was computed on, as the file names them."""
    n_chunks: int = 0
    """Pieces of text; 0 where the file does not say."""

    def of(self, name: str, shape: Sequence[int]) -> Matrix | None:
        """A tensor's weights, shape (matrices, row length), or None where the file has none.

        ``shape`` has the row's length last. Raises ImportanceError where the sizes do not fit; for
        token embeddings, of which llama.cpp collects other numbers, such weights are not used.
        """
        weights = self.entries.get(name)
        if weights is None:
            return None
        n_matrices = shape[-3] if len(shape) > 2 else 1
        if weights.size == n_matrices * shape[-1]:
            return weights.reshape(n_matrices, shape[-1])
        if name in TOKEN_EMBEDDINGS:
            return None
        raise ImportanceError(
            self.path,
            f"has {weights.size} weights for {name!r:.100}, which needs {n_matrices * shape[-1]}; "
            "compute it with the model that is being quantized",
        )

    def fingerprint(self) -> str:
        """SHA-256 (hex) over names and weights."""
        digest = hashlib.sha256()
        for name, weights in sorted(self.entries.items()):
            digest.update(f"{name}\0{weights.size}\0".encode())
            digest.update(np.ascontiguousarray(weights).tobytes())
        return digest.hexdigest()

    def metadata(self) -> Metadata:
        """The keys by which llama.cpp's tool says what was used."""
        metadata = Metadata()
        metadata.string("quantize.imatrix.file", _cut(self.path.name))
        if self.datasets:
            metadata.string("quantize.imatrix.dataset", _cut(self.datasets[0]))
        metadata.uint32("quantize.imatrix.entries_count", len(self.entries))
        if self.n_chunks > 0:
            metadata.uint32("quantize.imatrix.chunks_count", self.n_chunks)
        return metadata


def _cut(text: str) -> str:
    return text.encode("utf-8", "replace")[:_MAX_TEXT_BYTES].decode("utf-8", "ignore")


def read_importance(path: Path) -> Importance:
    """Read a file of either form. Raises ImportanceError for one that is neither, or damaged."""
    try:
        data = np.memmap(path, dtype=np.uint8, mode="r")
    except (OSError, ValueError) as error:
        problem = getattr(error, "strerror", None) or "it is empty"
        raise ImportanceError(path, f"cannot be read ({problem})") from error
    found = _read_gguf(path, data) if bytes(data[:4]) == b"GGUF" else _Legacy(path, data).read()
    for name, weights in found.entries.items():
        # NaN fails this comparison too. Larger weights overflow in ggml's kernels, which then end
        # the process.
        if not ((weights >= 0) & (weights <= MAX_WEIGHT)).all():
            raise ImportanceError(path, f"is damaged: {name!r:.80} has weights that cannot be")
    return found


def _read_gguf(path: Path, data: npt.NDArray[np.uint8]) -> Importance:
    try:
        header = read_header(path)
    except ModelFileError as error:
        raise ImportanceError(path, error.problem) from error
    keys = ("imatrix.datasets", "imatrix.chunk_count", "imatrix.chunk_size")
    if not all(key in header.metadata for key in keys):
        raise ImportanceError(path, f"is no importance matrix: it lacks {', '.join(keys)}")
    datasets, n_chunks = (header.metadata[key] for key in keys[:2])
    names = datasets if isinstance(datasets, list) else []
    if not isinstance(n_chunks, int):
        raise ImportanceError(path, f"is damaged: {keys[1]} is no number")
    return Importance(
        path,
        dict(_normalized(path, header, data)),
        tuple(name for name in names if isinstance(name, str)),
        n_chunks,
    )


def _normalized(
    path: Path, header: GGUFHeader, data: npt.NDArray[np.uint8]
) -> Iterator[tuple[str, Matrix]]:
    """Mean squares: each matrix's sums by its own count; 1 for experts that were never asked."""
    values: dict[str, Matrix] = {}
    for tensor in header.tensors:
        if tensor.name.endswith((_SUMS, _COUNTS)):
            if tensor.type.name != "F32":
                raise ImportanceError(path, f"is damaged: {tensor.name!r:.100} is not F32")
            start = header.data_offset + tensor.offset
            values[tensor.name] = data[start : start + tensor.n_bytes].view(np.float32)
    stems = sorted({name.rsplit(".", 1)[0] for name in values})
    if not stems:
        raise ImportanceError(path, "holds no weights")
    for stem in stems:
        sums, counts = values.get(stem + _SUMS), values.get(stem + _COUNTS)
        if sums is None or counts is None or not counts.size or sums.size % counts.size:
            raise ImportanceError(path, f"is damaged: sums and counts of {stem!r:.100} do not fit")
        if not np.isfinite(counts).all():
            raise ImportanceError(path, f"is damaged: the counts of {stem!r:.100} are no numbers")
        rounded = np.floor(counts + np.float32(0.5)).reshape(-1, 1)
        each = sums.reshape(counts.size, -1)
        ones = np.ones_like(each)
        yield stem, np.divide(each, rounded, out=ones, where=rounded > 0).reshape(-1)


class _Legacy:
    """A cursor over a .dat file, which has no magic number; every length is checked."""

    def __init__(self, path: Path, data: npt.NDArray[np.uint8]) -> None:
        self._path = path
        self._data = data.data
        self._at = 0

    def read(self) -> Importance:
        n_entries = self._int32()
        if not 1 <= n_entries <= len(self._data) // 16:
            raise self._foreign()
        entries = dict(self._entry() for _ in range(n_entries))
        n_chunks = max(0, self._int32()) if self._left >= 4 else 0
        return Importance(self._path, entries, self._dataset(), n_chunks)

    def _entry(self) -> tuple[str, Matrix]:
        name = self._text(self._int32())
        n_calls, n_values = self._int32(), self._int32()
        if n_values < 1:
            raise self._foreign()
        values = np.frombuffer(self._take(4 * n_values), dtype="<f4")
        # The sums are means times the number of calls.
        return name, values / np.float32(n_calls) if n_calls > 0 else values

    def _dataset(self) -> tuple[str, ...]:
        if self._left < 4:
            return ()
        length = self._int32()
        if not 0 < length <= min(self._left, _MAX_NAME_BYTES):
            return ()
        return (self._text(length),)

    @property
    def _left(self) -> int:
        return len(self._data) - self._at

    def _int32(self) -> int:
        value: int = struct.unpack("<i", self._take(4))[0]
        return value

    def _text(self, n_bytes: int) -> str:
        if not 0 < n_bytes <= _MAX_NAME_BYTES:
            raise self._foreign()
        return bytes(self._take(n_bytes)).split(b"\0")[0].decode("utf-8", "replace")

    def _take(self, n_bytes: int) -> Any:
        if n_bytes > self._left:
            raise self._foreign()
        self._at += n_bytes
        return self._data[self._at - n_bytes : self._at]

    def _foreign(self) -> ImportanceError:
        return ImportanceError(
            self._path,
            "is no importance matrix, or a truncated one; mofa-gguf imatrix makes one",
        )

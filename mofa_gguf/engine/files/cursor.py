"""Reading the values of a GGUF file one after the other, in pure Python.

Format: docs/gguf.md in ggml-org/ggml. Counts and lengths are bounded by the file's size before
anything is read or allocated.
"""

from __future__ import annotations

import errno
import mmap
import stat
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path
from typing import Any

from mofa_gguf.engine.errors import ModelFileError, OutOfMemory

MAX_KEPT_ARRAY = 256
"""Longer arrays (vocabularies, merges) are summarised, not kept."""
_MAX_PROBLEM = 300
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
    """Where in the file its elements begin, and"""
    end: int = field(default=0, compare=False)
    """where what follows them begins."""


@contextmanager
def mapped(path: Path, *, least_bytes: int = 1) -> Iterator[mmap.mmap]:
    """A file's bytes, while the block runs.

    Raises ModelFileError for what is no ordinary file, is shorter or cannot be read, and
    OutOfMemory where the limit on address space leaves no room for it.
    """
    size = 0
    try:
        status = path.stat()
        size = status.st_size
        if stat.S_ISDIR(status.st_mode):
            raise ModelFileError(path, "is a folder, not a GGUF file")
        if not stat.S_ISREG(status.st_mode):  # a pipe is waited for without end
            raise ModelFileError(path, "is no ordinary file")
        if size < least_bytes:
            raise ModelFileError(path, f"is no GGUF file: it has only {size} bytes")
        with path.open("rb") as file:
            view = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError:
        raise ModelFileError(path, "there is no such file; check the path") from None
    except OSError as error:
        if error.errno == errno.ENOMEM:
            raise OutOfMemory(
                f"{path} cannot be read: there is no room to map its {size / 2**20:,.0f} MiB; "
                "raise the limit on address space (ulimit -v)",
                n_bytes=size,
            ) from error
        raise ModelFileError(path, f"cannot be read ({error.strerror})") from error
    with view:
        yield view


class Cursor:
    """A place in the mapped file; every read is checked against the file's end."""

    def __init__(self, path: Path, view: mmap.mmap) -> None:
        self._path = path
        self._view = view
        self.end = len(view)
        self.at = 0

    def fail(self, problem: str) -> ModelFileError:
        """The error for a problem; names in it come from the file and may be long and odd."""
        shown = "".join(c if c.isprintable() else "?" for c in problem)
        if len(shown) > _MAX_PROBLEM:
            shown = f"{shown[: _MAX_PROBLEM // 2]} ... {shown[-_MAX_PROBLEM // 2 :]}"
        return ModelFileError(self._path, shown)

    def take(self, n_bytes: int, what: str) -> bytes:
        """The next bytes, of ``what``. Raises ModelFileError where the file ends before."""
        if n_bytes > self.end - self.at:
            raise self.fail(f"is truncated or damaged: it ends inside {what}")
        data = self._view[self.at : self.at + n_bytes]
        self.at += n_bytes
        return data

    def number(self, form: str, n_bytes: int, what: str) -> Any:
        """The next number, of a form of :mod:`struct`."""
        return struct.unpack(form, self.take(n_bytes, what))[0]

    def count(self, what: str, *, least_bytes: int) -> int:
        """How many of something follow. Raises ModelFileError for more than the file can hold."""
        count: int = self.number("<Q", 8, "the header")
        if count * least_bytes > self.end:
            raise self.fail(f"is damaged: it claims {count} {what}")
        return count

    def string(self, what: str) -> str:
        """The next text."""
        length: int = self.number("<Q", 8, what)
        # Vocabularies hold pieces that are no UTF-8 by themselves.
        return self.take(length, what).decode("utf-8", errors="surrogateescape")

    def value(self, type_id: int, key: str) -> Any:
        """The next value of a type (gguf.h, enum gguf_type), which belongs to ``key``."""
        if type_id == _STRING:
            return self.string(key)
        if type_id == _ARRAY:
            return self._array(key)
        if type_id in _SCALARS:
            form, n_bytes = _SCALARS[type_id]
            return self.number(form, n_bytes, key)
        raise self.fail(f"is damaged: {key} has the unknown value type {type_id}")

    def _array(self, key: str) -> list[Any] | ArraySummary:
        type_id: int = self.number("<I", 4, key)
        length: int = self.number("<Q", 8, key)
        start = self.at
        if type_id == _STRING:
            if length * 8 > self.end - self.at:
                raise self.fail(f"is truncated or damaged: {key} claims {length} strings")
            if length > MAX_KEPT_ARRAY:
                self._skip_strings(length, key)
                return ArraySummary(type_id, length, start, self.at)
            return [self.string(key) for _ in range(length)]
        if type_id not in _SCALARS:
            raise self.fail(f"is damaged: {key} is an array of the unknown type {type_id}")
        form, n_bytes = _SCALARS[type_id]
        if length * n_bytes > self.end - self.at:
            raise self.fail(f"is truncated or damaged: {key} claims {length} values")
        if length > MAX_KEPT_ARRAY:
            self.at += length * n_bytes
            return ArraySummary(type_id, length, start, self.at)
        data = self.take(length * n_bytes, key)
        return list(struct.unpack(f"<{length}{form[1]}", data))

    def _skip_strings(self, count: int, key: str) -> None:
        unpack: Callable[..., tuple[int]] = struct.Struct("<Q").unpack_from
        view, at = self._view, self.at
        try:
            for _ in repeat(None, count):
                at += 8 + unpack(view, at)[0]
        except (struct.error, OverflowError):  # at or beyond the end; beyond any end
            at = self.end + 1
        if at > self.end:
            raise self.fail(f"is truncated or damaged: it ends inside {key}")
        self.at = at

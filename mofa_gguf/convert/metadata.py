"""GGUF key-value pairs with their types, in the order they will be written.

Format: docs/gguf.md in ggml-org/ggml. A family and a tokenizer each give one of these; the writer
joins them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import Any

import numpy as np

_ARRAY = 9
_MANY = 1000


class ValueType(Enum):
    """Value types of the GGUF format that the converter writes (numbers as in gguf.h)."""

    UINT8 = 0
    UINT16 = 2
    UINT32 = 4
    INT32 = 5
    FLOAT32 = 6
    BOOL = 7
    STRING = 8
    UINT64 = 10


_NUMBERS: Mapping[ValueType, str] = {
    ValueType.UINT8: "B",
    ValueType.UINT16: "H",
    ValueType.UINT32: "I",
    ValueType.INT32: "i",
    ValueType.FLOAT32: "f",
    ValueType.BOOL: "?",
    ValueType.UINT64: "Q",
}

Scalar = int | float | bool | str | bytes


@dataclass(frozen=True)
class Value:
    """One value; ``data`` is a sequence exactly when ``is_array``, and does not change."""

    type: ValueType
    data: Scalar | Sequence[Scalar]
    is_array: bool = False
    encoded: bytes | None = None
    """A value of another GGUF file: its type and data as they stand there."""

    @cached_property
    def form(self) -> bytes:
        """Its type and data as they stand in a file; made once, for vocabularies go into two.

        Raises struct.error, UnicodeEncodeError or OverflowError for what has no form.
        """
        if self.encoded is not None:
            return self.encoded
        if not self.is_array:
            return struct.pack("<I", self.type.value) + _elements(self.type, [self.data])
        data = self.data
        assert isinstance(data, Sequence)
        head = struct.pack("<IIQ", _ARRAY, self.type.value, len(data))
        return head + _elements(self.type, data)


def _elements(kind: ValueType, data: Sequence[Any]) -> bytes:
    if kind is ValueType.STRING:
        return _strings(data)
    return struct.pack(f"<{len(data)}{_NUMBERS[kind]}", *data)


def _strings(texts: Sequence[Scalar]) -> bytes:
    """Each with its length in front."""
    together = _together(texts) if len(texts) >= _MANY else None
    if together is not None:
        return together
    data = [text if isinstance(text, bytes) else str(text).encode("utf-8") for text in texts]
    return b"".join(part for text in data for part in (struct.pack("<Q", len(text)), text))


def _together(texts: Sequence[Any]) -> bytes | None:
    """:func:`_strings` in a quarter of the time; None where one is no text or has a zero byte."""
    try:
        joined = "\0".join(["", *texts]).encode("utf-8")
    except (TypeError, UnicodeEncodeError):
        return None
    # A zero byte in front of each makes room for its length.
    places = np.flatnonzero(np.frombuffer(joined, np.uint8) == 0)
    if len(places) != len(texts):
        return None
    spaced = bytearray(joined.replace(b"\0", bytes(8)))
    numbers = np.ndarray((len(spaced) - 7,), "<u8", buffer=spaced, strides=(1,))
    numbers[places + 7 * np.arange(len(texts))] = np.diff(places, append=len(joined)) - 1
    return bytes(spaced)


def written_name(name: str) -> str:
    """A file's or folder's name as text: a question mark for each byte in it that is no UTF-8."""
    return name.encode("utf-8", errors="replace").decode("utf-8")


class Metadata:
    """Ordered, typed key-value pairs. Setting a key again replaces its value."""

    def __init__(self) -> None:
        self._values: dict[str, Value] = {}

    def uint32(self, key: str, value: int) -> None:
        """Set an unsigned 32-bit number; ValueError outside its range."""
        if not 0 <= value < 2**32:
            raise ValueError(f"{key}: {value} is no unsigned 32-bit number")
        self._values[key] = Value(ValueType.UINT32, value)

    def uint16(self, key: str, value: int) -> None:
        """Set an unsigned 16-bit number."""
        self._values[key] = Value(ValueType.UINT16, value)

    def copied(self, key: str, encoded: bytes) -> None:
        """Set a value that another GGUF file holds: its type's number and its data, as there."""
        self._values[key] = Value(ValueType.UINT8, b"", is_array=True, encoded=encoded)

    def remove(self, key: str) -> None:
        """Forget a key, if it is set."""
        self._values.pop(key, None)

    def int32(self, key: str, value: int) -> None:
        """Set a signed 32-bit number; ValueError outside its range."""
        if not -(2**31) <= value < 2**31:
            raise ValueError(f"{key}: {value} is no signed 32-bit number")
        self._values[key] = Value(ValueType.INT32, value)

    def uint64(self, key: str, value: int) -> None:
        """Set an unsigned 64-bit number."""
        self._values[key] = Value(ValueType.UINT64, value)

    def float32(self, key: str, value: float) -> None:
        """Set a 32-bit float."""
        self._values[key] = Value(ValueType.FLOAT32, float(value))

    def boolean(self, key: str, value: bool) -> None:
        """Set a boolean."""
        self._values[key] = Value(ValueType.BOOL, bool(value))

    def string(self, key: str, value: str) -> None:
        """Set a string (UTF-8 in the file)."""
        self._values[key] = Value(ValueType.STRING, value)

    def strings(self, key: str, values: Sequence[str | bytes]) -> None:
        """Set an array of strings; bytes go to the file as they are."""
        self._values[key] = Value(ValueType.STRING, list(values), is_array=True)

    def booleans(self, key: str, values: Sequence[bool]) -> None:
        """Set an array of booleans."""
        self._values[key] = Value(ValueType.BOOL, list(values), is_array=True)

    def uint8s(self, key: str, values: bytes) -> None:
        """Set an array of bytes."""
        self._values[key] = Value(ValueType.UINT8, values, is_array=True)

    def uint32s(self, key: str, values: Sequence[int]) -> None:
        """Set an array of unsigned 32-bit numbers."""
        self._values[key] = Value(ValueType.UINT32, list(values), is_array=True)

    def int32s(self, key: str, values: Sequence[int]) -> None:
        """Set an array of signed 32-bit numbers."""
        self._values[key] = Value(ValueType.INT32, list(values), is_array=True)

    def float32s(self, key: str, values: Sequence[float]) -> None:
        """Set an array of 32-bit floats."""
        self._values[key] = Value(ValueType.FLOAT32, list(values), is_array=True)

    def update(self, other: Metadata) -> None:
        """Take over every pair of ``other``, replacing pairs with the same key."""
        self._values.update(other._values)

    def get(self, key: str) -> Value | None:
        """The value under ``key``, or None."""
        return self._values.get(key)

    def __contains__(self, key: object) -> bool:
        return key in self._values

    def __len__(self) -> int:
        return len(self._values)

    def items(self) -> Iterator[tuple[str, Value]]:
        """Pairs in the order they were first set."""
        return iter(self._values.items())

"""A GGUF file taken apart so that any part of it can be changed, and put together again.

For tests and fuzzing: what is put together may be as broken as one likes. Format: docs/gguf.md in
ggml-org/ggml.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mofa_gguf.engine.files.tensor_types import TYPES_BY_ID

STRING, ARRAY = 8, 9
# gguf.h, enum gguf_type: struct formats of the fixed-size values.
FORMS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "B", 10: "Q", 11: "q", 12: "d"}
_ALIGNMENT = 32


@dataclass
class Pair:
    """A metadata entry; strings are bytes, an array has its elements' type in ``element``."""

    key: bytes
    type: int
    value: Any
    element: int | None = None


@dataclass
class Tensor:
    """A tensor with its data; ``offset`` is what the header will say, None for the right one."""

    name: bytes
    shape: list[int]
    type: int
    data: bytes
    offset: int | None = None

    def refill(self) -> None:
        """Make the data as long as shape and type say, where that is a length."""
        kind = TYPES_BY_ID.get(self.type)
        n_elements = 1
        for n in self.shape:
            n_elements *= n
        if kind is None or not 0 <= n_elements <= 2**24:
            return
        wanted = -(-n_elements // kind.block_size) * kind.n_block_bytes
        self.data = (self.data * (wanted // max(1, len(self.data)) + 1))[:wanted]


@dataclass
class Parts:
    """A whole file."""

    pairs: list[Pair]
    tensors: list[Tensor]
    version: int = 3
    n_pairs: int | None = None
    """What the header claims; None for the truth."""
    n_tensors: int | None = None
    magic: bytes = b"GGUF"
    tail: bytes = field(default=b"", repr=False)

    def pair(self, key: str) -> Pair:
        """The entry of this key. KeyError if there is none."""
        for pair in self.pairs:
            if pair.key == key.encode():
                return pair
        raise KeyError(key)

    def has(self, key: str) -> bool:
        """Whether there is an entry of this key."""
        return any(pair.key == key.encode() for pair in self.pairs)

    def set(self, key: str, type_id: int, value: Any, element: int | None = None) -> None:
        """Give the entry of this key another value; it is added where there is none."""
        self.drop(key)
        self.pairs.append(Pair(key.encode(), type_id, value, element))

    def drop(self, key: str) -> None:
        """Take the entry of this key out."""
        self.pairs = [pair for pair in self.pairs if pair.key != key.encode()]

    def tensor(self, name: str) -> Tensor:
        """The tensor of this name. KeyError if there is none."""
        for tensor in self.tensors:
            if tensor.name == name.encode():
                return tensor
        raise KeyError(name)

    def data(self) -> bytes:
        """The file's bytes."""
        out = bytearray(self.magic)
        out += struct.pack("<I", self.version & 0xFFFFFFFF)
        n_tensors = len(self.tensors) if self.n_tensors is None else self.n_tensors
        n_pairs = len(self.pairs) if self.n_pairs is None else self.n_pairs
        out += struct.pack("<QQ", n_tensors % 2**64, n_pairs % 2**64)
        for pair in self.pairs:
            out += _string(pair.key) + struct.pack("<I", pair.type % 2**32) + _value(pair)
        offset = 0
        for tensor in self.tensors:
            out += _string(tensor.name) + struct.pack("<I", len(tensor.shape))
            out += b"".join(struct.pack("<Q", n % 2**64) for n in tensor.shape)
            stated = offset if tensor.offset is None else tensor.offset
            out += struct.pack("<IQ", tensor.type % 2**32, stated % 2**64)
            offset += _padded(len(tensor.data))
        out += bytes(_padded(len(out)) - len(out))
        for tensor in self.tensors:
            out += tensor.data + bytes(_padded(len(tensor.data)) - len(tensor.data))
        return bytes(out + self.tail)

    def write(self, path: Path) -> Path:
        """Write the file; its path."""
        path.write_bytes(self.data())
        return path


def take_apart(path: Path) -> Parts:
    """The parts of a valid file."""
    data = path.read_bytes()
    version, n_tensors, n_pairs = struct.unpack_from("<IQQ", data, 4)
    at = 24
    pairs = []
    for _ in range(n_pairs):
        key, at = _read_string(data, at)
        (kind,) = struct.unpack_from("<I", data, at)
        pair, at = _read_value(data, at + 4, key, kind)
        pairs.append(pair)
    infos = []
    for _ in range(n_tensors):
        name, at = _read_string(data, at)
        (n_dims,) = struct.unpack_from("<I", data, at)
        shape = list(struct.unpack_from(f"<{n_dims}Q", data, at + 4))
        kind, offset = struct.unpack_from("<IQ", data, at + 4 + 8 * n_dims)
        at += 16 + 8 * n_dims
        infos.append((name, shape, kind, offset))
    start = _padded(at)
    tensors = [
        Tensor(name, shape, kind, data[start + offset : start + offset + _size(shape, kind)])
        for name, shape, kind, offset in infos
    ]
    return Parts(pairs, tensors, version)


def texts(values: Iterable[str]) -> list[bytes]:
    """Strings as they stand in a file."""
    return [value.encode() for value in values]


def _size(shape: list[int], kind: int) -> int:
    n_elements = 1
    for n in shape:
        n_elements *= n
    return TYPES_BY_ID[kind].row_bytes(n_elements)


def _padded(n_bytes: int) -> int:
    return -(-n_bytes // _ALIGNMENT) * _ALIGNMENT


def _string(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def _read_string(data: bytes, at: int) -> tuple[bytes, int]:
    (length,) = struct.unpack_from("<Q", data, at)
    return data[at + 8 : at + 8 + length], at + 8 + length


def _read_value(data: bytes, at: int, key: bytes, kind: int) -> tuple[Pair, int]:
    if kind == STRING:
        text, at = _read_string(data, at)
        return Pair(key, kind, text), at
    if kind != ARRAY:
        size = struct.calcsize(FORMS[kind])
        return Pair(key, kind, struct.unpack_from("<" + FORMS[kind], data, at)[0]), at + size
    element, length = struct.unpack_from("<IQ", data, at)
    at += 12
    values: list[Any] = []
    if element == STRING:
        for _ in range(length):
            text, at = _read_string(data, at)
            values.append(text)
    else:
        form = f"<{length}{FORMS[element]}"
        values = list(struct.unpack_from(form, data, at))
        at += struct.calcsize(form)
    return Pair(key, kind, values, element), at


def _value(pair: Pair) -> bytes:
    if pair.type == ARRAY:
        assert pair.element is not None
        head = struct.pack("<IQ", pair.element % 2**32, len(pair.value))
        return head + b"".join(_scalar(pair.element, value) for value in pair.value)
    return _scalar(pair.type, pair.value)


def _scalar(kind: int, value: Any) -> bytes:
    """A value as this type: what does not fit is cut to it."""
    if isinstance(value, bytes):
        return _string(value) if kind == STRING else value[:4].ljust(4, b"\0")
    if kind == STRING:
        return _string(str(value).encode())
    form = FORMS.get(kind)
    if form is None:
        return struct.pack("<q", int(value) % 2**63) if value == value else b"\xff" * 8
    if form in "fd":
        try:
            return struct.pack("<" + form, float(value))
        except OverflowError:
            return struct.pack("<" + form, float("inf"))
    size = struct.calcsize(form)
    whole = 0 if value != value or value in (float("inf"), float("-inf")) else int(value)
    return (whole % 2 ** (8 * size)).to_bytes(size, "little")

"""The GGUF file's bytes before the tensors' data.

Format: docs/gguf.md in ggml-org/ggml, version 3, little-endian. Written here and not with the gguf
package because its writer takes whole tensors, and ours come a few rows at a time.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

from mofa_gguf.convert.errors import ConversionError
from mofa_gguf.convert.metadata import Metadata, Scalar, Value, ValueType
from mofa_gguf.convert.plan import PlannedTensor

MAGIC = b"GGUF"
VERSION = 3
ALIGNMENT = 32
_ARRAY = 9

_NUMBERS: Mapping[ValueType, str] = {
    ValueType.UINT8: "B",
    ValueType.UINT16: "H",
    ValueType.UINT32: "I",
    ValueType.INT32: "i",
    ValueType.FLOAT32: "f",
    ValueType.BOOL: "?",
    ValueType.UINT64: "Q",
}


def padded(n_bytes: int) -> int:
    """``n_bytes`` rounded up to the alignment."""
    return -(-n_bytes // ALIGNMENT) * ALIGNMENT


def data_size(tensors: Sequence[PlannedTensor]) -> int:
    """Bytes of the data section, padding included."""
    return sum(padded(tensor.n_bytes) for tensor in tensors)


def header_bytes(metadata: Metadata, tensors: Sequence[PlannedTensor]) -> bytes:
    """Everything before the data section, padded. Raises ConversionError for what has no form."""
    parts = [MAGIC, struct.pack("<IQQ", VERSION, len(tensors), len(metadata))]
    for key, value in metadata.items():
        try:
            parts += [_string(key), _value(value)]
        except (struct.error, UnicodeEncodeError, OverflowError) as error:
            raise ConversionError(f"{key} cannot be written to a GGUF file: {error}") from error
    offset = 0
    for tensor in tensors:
        parts.append(_tensor_info(tensor, offset))
        offset += padded(tensor.n_bytes)
    header = b"".join(parts)
    return header + bytes(padded(len(header)) - len(header))


def _tensor_info(tensor: PlannedTensor, offset: int) -> bytes:
    # GGUF counts dimensions from the fastest.
    shape = tensor.shape[::-1]
    return _string(tensor.name) + struct.pack(
        f"<I{len(shape)}QIQ", len(shape), *shape, tensor.target.id, offset
    )


def _string(text: Scalar) -> bytes:
    data = text if isinstance(text, bytes) else str(text).encode("utf-8")
    return struct.pack("<Q", len(data)) + data


def _strings(texts: Sequence[str | bytes]) -> bytes:
    """Many strings: what :func:`_string` gives for each, in a third of the time."""
    data = [text if isinstance(text, bytes) else text.encode("utf-8") for text in texts]
    lengths = struct.pack(f"<{len(data)}Q", *map(len, data))
    pieces = [b""] * (2 * len(data))
    pieces[::2] = [lengths[at : at + 8] for at in range(0, len(lengths), 8)]
    pieces[1::2] = data
    return b"".join(pieces)


def _value(value: Value) -> bytes:
    if value.encoded is not None:
        return value.encoded
    if not value.is_array:
        return struct.pack("<I", value.type.value) + _elements(value.type, [value.data])
    data = value.data
    assert isinstance(data, Sequence)
    head = struct.pack("<IIQ", _ARRAY, value.type.value, len(data))
    return head + _elements(value.type, data)


def _elements(kind: ValueType, data: Sequence[Any]) -> bytes:
    if kind is ValueType.STRING:
        return _strings(data)
    return struct.pack(f"<{len(data)}{_NUMBERS[kind]}", *data)

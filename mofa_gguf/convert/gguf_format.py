"""The GGUF file's bytes before the tensors' data.

Format: docs/gguf.md in ggml-org/ggml, version 3, little-endian. Written here and not with the gguf
package because its writer takes whole tensors, and ours come a few rows at a time.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from mofa_gguf.convert.errors import ConversionError
from mofa_gguf.convert.metadata import Metadata
from mofa_gguf.convert.plan import PlannedTensor

MAGIC = b"GGUF"
VERSION = 3
ALIGNMENT = 32


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
            parts += [_string(key), value.form]
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


def _string(text: str) -> bytes:
    data = text.encode("utf-8")
    return struct.pack("<Q", len(data)) + data

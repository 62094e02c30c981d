"""A GGUF file that holds a vocabulary and nothing else, for llama.cpp to load in a moment.

Format: docs/gguf.md in ggml-org/ggml. Written here rather than by the converter's writer because
candidates differ in one key: the large arrays are packed once.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

from mofa_gguf.convert.metadata import Metadata, Value, ValueType

_MAGIC_AND_VERSION = b"GGUF" + struct.pack("<I", 3)
_ARRAY = 9
_PACK = {
    ValueType.UINT8: "B",
    ValueType.UINT32: "I",
    ValueType.INT32: "i",
    ValueType.FLOAT32: "f",
    ValueType.BOOL: "?",
    ValueType.UINT64: "Q",
}


class VocabularyFile:
    """Packs ``metadata`` once; :meth:`write` adds what differs from candidate to candidate."""

    def __init__(self, metadata: Metadata, *, architecture: str = "llama") -> None:
        base = Metadata()
        base.string("general.architecture", architecture)
        base.update(metadata)
        self._n_keys = len(base)
        self._packed = b"".join(_pair(key, value) for key, value in base.items())

    def write(self, path: Path, **pairs: str) -> None:
        """Write the file; ``pairs`` are further string keys under ``tokenizer.ggml.``."""
        extra = Metadata()
        for name, text in pairs.items():
            extra.string(f"tokenizer.ggml.{name}", text)
        header = _MAGIC_AND_VERSION + struct.pack("<QQ", 0, self._n_keys + len(extra))
        tail = b"".join(_pair(key, value) for key, value in extra.items())
        path.write_bytes(header + self._packed + tail)


def _pair(key: str, value: Value) -> bytes:
    name = _string(key)
    if not value.is_array:
        return name + struct.pack("<I", value.type.value) + _values(value.type, [value.data])
    assert isinstance(value.data, Sequence)
    head = struct.pack("<IIQ", _ARRAY, value.type.value, len(value.data))
    return name + head + _values(value.type, value.data)


def _values(kind: ValueType, values: Sequence[object]) -> bytes:
    if kind is ValueType.STRING:
        return b"".join(_string(value) for value in values)
    return struct.pack(f"<{len(values)}{_PACK[kind]}", *values)


def _string(value: object) -> bytes:
    assert isinstance(value, str | bytes)
    # A token of a damaged tokenizer.json may be half a surrogate pair.
    data = value if isinstance(value, bytes) else value.encode("utf-8", errors="surrogatepass")
    return struct.pack("<Q", len(data)) + data

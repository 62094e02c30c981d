"""Checkpoint folders and files for the store's tests, and a converter that needs no model."""

from __future__ import annotations

import json
import struct
from pathlib import Path


def safetensors(values: bytes = b"\0" * 8) -> bytes:
    """A whole safetensors file with one tensor."""
    header = json.dumps(
        {"w": {"dtype": "U8", "shape": [len(values)], "data_offsets": [0, len(values)]}}
    ).encode()
    return struct.pack("<Q", len(header)) + header + values


def make_checkpoint(folder: Path, *, weights: bytes = b"\0" * 8) -> Path:
    """A folder that looks like a checkpoint from outside."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    (folder / "tokenizer.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(safetensors(weights))
    return folder


class RecordingConverter:
    """Writes a file that begins like GGUF and remembers what it was asked for."""

    def __init__(self) -> None:
        self.calls: list[tuple[Path, Path, str]] = []

    def __call__(
        self, source: Path, output: Path, quantization: str, *, progress: object
    ) -> object:
        self.calls.append((source, output, quantization))
        output.write_bytes(b"GGUF" + quantization.encode())
        return None

"""Bounded reading of the files of a checkpoint folder that describe its tokenizer."""

from __future__ import annotations

import json
from pathlib import Path

from mofa_gguf.convert.errors import TokenizerError

# The largest tokenizer.json in use (Gemma 3) has 33 MB.
MAX_VOCABULARY_BYTES = 256 * 2**20
MAX_CONFIG_BYTES = 32 * 2**20
MAX_TEMPLATE_BYTES = 4 * 2**20


def read_bytes(folder: Path, name: str, *, max_bytes: int) -> bytes | None:
    """Content of ``folder/name``, or None when there is no such file.

    Raises TokenizerError when it cannot be read or is larger than ``max_bytes``.
    """
    path = folder / name
    try:
        if not path.is_file():
            return None
        n_bytes = path.stat().st_size
        if n_bytes > max_bytes:
            raise TokenizerError(
                f"{path}: {n_bytes} bytes are more than a {name} may have ({max_bytes})"
            )
        return path.read_bytes()
    except OSError as error:
        raise TokenizerError(f"{path}: cannot be read ({error.strerror or error})") from error


def read_text(folder: Path, name: str, *, max_bytes: int) -> str | None:
    """Like :func:`read_bytes`, as UTF-8 text."""
    data = read_bytes(folder, name, max_bytes=max_bytes)
    return None if data is None else decode_utf8(data, folder / name)


def decode_utf8(data: bytes, path: Path) -> str:
    """Decode UTF-8, with TokenizerError instead of UnicodeDecodeError."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise TokenizerError(f"{path}: is not UTF-8 text (byte {error.start})") from error


def parse_json_object(text: str | bytes, path: Path) -> dict[str, object]:
    """Parse a JSON object; TokenizerError for anything else."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise TokenizerError(f"{path}: is not valid JSON ({error})") from error
    if not isinstance(value, dict):
        raise TokenizerError(f"{path}: holds no JSON object")
    return value


def read_json(folder: Path, name: str, *, max_bytes: int = MAX_CONFIG_BYTES) -> dict[str, object]:
    """The JSON object in ``folder/name``; an empty one when there is no such file."""
    data = read_bytes(folder, name, max_bytes=max_bytes)
    return {} if data is None else parse_json_object(data, folder / name)

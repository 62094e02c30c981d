"""Batches over providers that need no model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest


def write_lines(path: Path, lines: Sequence[Any]) -> Path:
    """A JSON-lines file; texts and bytes go in as they are."""
    encoded = [
        line
        if isinstance(line, bytes)
        else (line if isinstance(line, str) else json.dumps(line)).encode()
        for line in lines
    ]
    path.write_bytes(b"".join(line + b"\n" for line in encoded))
    return path


def content(path: Path) -> bytes:
    """A file's bytes; nothing where there is no file."""
    return path.read_bytes() if path.exists() else b""


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSON-lines file, whose last line has to be whole."""
    data = path.read_bytes()
    assert not data or data.endswith(b"\n")
    return [json.loads(line) for line in data.splitlines()]


def by_id(path: Path) -> dict[str, dict[str, Any]]:
    """The output lines by custom_id, of which there are no two alike."""
    lines = read_lines(path)
    found = {line["custom_id"]: line for line in lines}
    assert len(found) == len(lines)
    return found


def text_of(line: dict[str, Any]) -> str:
    """The answer that an output line holds."""
    text: str = line["response"]["body"]["choices"][0]["message"]["content"]
    return text


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"

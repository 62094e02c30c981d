"""A target file gets its name when all its bytes are on the disk, or never."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from mofa_gguf import unfinished
from mofa_gguf.convert.errors import OutputError
from mofa_gguf.convert.output import PartialFile
from mofa_gguf.convert.output_set import PartialSet


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was brought to the disk and what got a name, in order."""
    told: list[str] = []
    replace = Path.replace

    def note_sync(fd: int) -> None:
        told.append(f"{os.fstat(fd).st_size} bytes on the disk")

    def note_name(path: Path, target: Path) -> Path:
        told.append(f"{target.name} named")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(Path, "replace", note_name)
    return told


def test_a_file_is_named_when_the_disk_has_it(tmp_path: Path, steps: list[str]) -> None:
    with PartialFile(tmp_path / "m.gguf") as partial:
        partial.file.write(b"x" * 10)
        partial.commit()
    assert steps == ["10 bytes on the disk", "m.gguf named"]
    assert {path.name: path.stat().st_size for path in tmp_path.iterdir()} == {"m.gguf": 10}


def test_parts_are_named_when_the_disk_has_all_of_them_and_the_first_comes_last(
    tmp_path: Path, steps: list[str]
) -> None:
    with PartialSet([tmp_path / "a", tmp_path / "b"]) as parts:
        for i in (0, 1):
            parts.open(i).file.write(b"x" * (i + 1))
        parts.commit()
    assert steps[:2] == ["1 bytes on the disk", "2 bytes on the disk"]
    assert steps[2:] == ["b named", "a named"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_a_disk_that_does_not_take_it_in_the_end_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(fd: int) -> None:
        raise OSError(errno.ENOSPC, "no room")

    monkeypatch.setattr(os, "fsync", fail)
    target = tmp_path / "m.gguf"
    target.write_bytes(b"before")
    with PartialFile(target) as partial:
        partial.file.write(b"x")
        with pytest.raises(OutputError, match="the disk is full"):
            partial.commit()
    assert [path.name for path in tmp_path.iterdir()] == ["m.gguf"]
    assert target.read_bytes() == b"before"


def test_a_second_interrupt_while_the_file_is_closed_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_file: PartialFile) -> None:
        raise KeyboardInterrupt

    partial = PartialFile(tmp_path / "m.gguf").__enter__()
    partial.file.close()
    monkeypatch.setattr(PartialFile, "close", interrupted)
    with pytest.raises(KeyboardInterrupt):
        partial.__exit__(None, None, None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("method", ["open", "mkdir"])
def test_an_interrupt_behind_the_making_leaves_nothing_behind(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = getattr(Path, method)

    def interrupted(path: Path, *arguments: object) -> None:
        made = make(path, *arguments)
        if made is not None:
            made.close()
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, method, interrupted)
    target = tmp_path / "m.gguf"
    with (
        pytest.raises(KeyboardInterrupt),
        PartialFile(target) if method == "open" else PartialSet([target]),
    ):
        pass
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == []
    assert not unfinished._undo


@pytest.mark.parametrize("kind", ["file", "set"])
def test_what_could_not_be_made_is_not_remembered(kind: str, tmp_path: Path) -> None:
    target = tmp_path / "none" / "m.gguf"
    with (
        pytest.raises(OutputError, match="cannot be written"),
        PartialFile(target) if kind == "file" else PartialSet([target]),
    ):
        pass
    assert not unfinished._undo

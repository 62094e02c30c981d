"""The digest of a checkpoint's content."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from mofa_gguf.store import NotAModel
from mofa_gguf.store.fingerprint import fingerprint
from tests.store.checkpoints import make_checkpoint, safetensors


def test_two_copies_of_a_checkpoint_have_one_digest(tmp_path: Path) -> None:
    first = make_checkpoint(tmp_path / "first")
    second = Path(shutil.copytree(first, tmp_path / "second"))
    os.utime(second / "model.safetensors", (1, 1))
    memory = tmp_path / "memory"
    assert fingerprint(first, memory=memory) == fingerprint(second, memory=memory)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("model.safetensors", safetensors(b"\1" * 8)),
        ("config.json", b'{"architectures": ["MistralForCausalLM"]}'),
        ("tokenizer.json", b"{ }"),
        ("chat_template.jinja", b"{{ messages }}"),
        ("1_Pooling/config.json", b"{}"),
    ],
)
def test_a_changed_or_added_file_changes_the_digest(
    tmp_path: Path, name: str, content: bytes
) -> None:
    folder = make_checkpoint(tmp_path / "checkpoint")
    before = fingerprint(folder, memory=tmp_path / "memory")
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(content)
    assert fingerprint(folder, memory=tmp_path / "memory") != before


def test_files_that_no_conversion_reads_do_not_count(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "checkpoint")
    before = fingerprint(folder, memory=tmp_path / "memory")
    (folder / "README.md").write_text("hello")
    (folder / "pytorch_model.bin").write_bytes(b"x")
    assert fingerprint(folder, memory=tmp_path / "memory") == before


def test_unchanged_files_are_read_only_once(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "checkpoint")
    read: list[tuple[int, int]] = []

    def on_bytes(n_done: int, n_total: int) -> None:
        read.append((n_done, n_total))

    first = fingerprint(folder, memory=tmp_path / "memory", on_bytes=on_bytes)
    assert read[-1][0] == read[-1][1] == sum(p.stat().st_size for p in folder.iterdir())
    read.clear()
    assert fingerprint(folder, memory=tmp_path / "memory", on_bytes=on_bytes) == first
    assert read == []


@pytest.mark.parametrize("damage", [b"", b"[]", b"{", b'{"a": 1}'])
def test_a_damaged_memory_is_ignored(tmp_path: Path, damage: bytes) -> None:
    folder = make_checkpoint(tmp_path / "checkpoint")
    memory = tmp_path / "memory"
    expected = fingerprint(folder, memory=memory)
    for file in memory.iterdir():
        file.write_bytes(damage)
    assert fingerprint(folder, memory=memory) == expected


def test_a_memory_that_cannot_be_written_costs_only_time(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "checkpoint")
    (tmp_path / "blocked").write_text("a file where the folder should be")
    assert fingerprint(folder, memory=tmp_path / "blocked")


def test_a_folder_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(NotAModel, match="cannot be read"):
        fingerprint(tmp_path / "missing", memory=tmp_path / "memory")

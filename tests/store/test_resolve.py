"""From a ``model`` setting to a GGUF file."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mofa_gguf.store import (
    DownloadFailed,
    ModelMissing,
    NotAModel,
    demo_checkpoint,
    locate,
    lookup,
    resolve,
)
from mofa_gguf.store.progress import ReadingProgress
from tests.store.checkpoints import RecordingConverter, make_checkpoint


@pytest.fixture(autouse=True)
def cache_in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOFA_GGUF_CACHE_DIR", str(tmp_path / "cache"))


def gguf(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"GGUF....")
    return path


def test_a_gguf_file_is_used_where_it_is(tmp_path: Path) -> None:
    path = gguf(tmp_path / "x.gguf")
    resolved = resolve(str(path))
    assert (resolved.path, resolved.kind, resolved.source) == (path, "gguf", str(path))
    assert resolve(path) == resolved


def test_a_relative_path_is_relative_to_the_config_files_folder(tmp_path: Path) -> None:
    path = gguf(tmp_path / "models" / "x.gguf")
    assert resolve("models/x.gguf", base_dir=tmp_path).path == path


def test_a_folder_with_one_gguf_file_stands_for_that_file(tmp_path: Path) -> None:
    path = gguf(tmp_path / "folder" / "x.gguf")
    assert resolve(str(tmp_path / "folder")).path == path


def test_a_folder_with_several_gguf_files_asks_for_one(tmp_path: Path) -> None:
    gguf(tmp_path / "a.gguf")
    gguf(tmp_path / "b.gguf")
    with pytest.raises(NotAModel, match=r"several models.*a\.gguf, b\.gguf"):
        resolve(str(tmp_path))


@pytest.mark.parametrize("part", [1, 2, 3])
def test_any_part_of_a_split_model_stands_for_the_whole(tmp_path: Path, part: int) -> None:
    paths = [gguf(tmp_path / f"m-{n:05}-of-00003.gguf") for n in (1, 2, 3)]
    assert resolve(str(paths[part - 1])).path == paths[0]
    assert resolve(str(tmp_path)).path == paths[0]


def test_missing_parts_of_a_split_model_are_named(tmp_path: Path) -> None:
    path = gguf(tmp_path / "m-00002-of-00003.gguf")
    with pytest.raises(NotAModel, match=r"m-00001-of-00003\.gguf, m-00003-of-00003\.gguf"):
        resolve(str(path))


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("text.gguf", b"hello", "is no GGUF file"),
        ("empty.gguf", b"", "is no GGUF file"),
        ("model.safetensors", b"x", "give the checkpoint's folder"),
        ("model.bin", b"x", "pickled weights are not read"),
        ("model.pt", b"GGUF", "pickled weights are not read"),
    ],
)
def test_other_files_are_refused_with_what_to_do(
    tmp_path: Path, name: str, content: bytes, problem: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(NotAModel, match=problem) as caught:
        resolve(str(tmp_path / name))
    assert caught.value.path == tmp_path / name


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_what_nobody_may_ever_write_to_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.gguf")
    with pytest.raises(NotAModel, match="is no ordinary file"):
        resolve(str(tmp_path / "pipe.gguf"))


def test_a_checkpoint_folder_is_converted_into_the_cache(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "tiny")
    converter = RecordingConverter()
    reports: list[object] = []
    resolved = resolve(
        str(folder), quantization="Q4_K_M", converter=converter, progress=reports.append
    )
    assert resolved.kind == "checkpoint"
    assert resolved.checkpoint == folder
    assert resolved.path.parent == tmp_path / "cache" / "converted"
    assert [(source, kind) for source, _, kind in converter.calls] == [(folder, "Q4_K_M")]
    assert any(isinstance(report, ReadingProgress) for report in reports)


def test_an_explicit_cache_folder_is_used(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "tiny")
    resolved = resolve(str(folder), cache_dir=tmp_path / "other", converter=RecordingConverter())
    assert resolved.path.is_relative_to(tmp_path / "other")


def test_a_missing_model_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ModelMissing, match="does not exist"):
        resolve(str(tmp_path / "none.gguf"))


def test_locating_converts_and_downloads_nothing(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "tiny")
    path = gguf(tmp_path / "models" / "x.gguf")
    assert locate(str(folder)) == folder
    assert locate(str(path.parent)) == path
    with pytest.raises(DownloadFailed, match="offline is set"):
        locate("org/name", offline=True)
    assert not (tmp_path / "cache").exists()


def test_an_installation_without_the_demo_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup, "__file__", "/nowhere/store/lookup.py")
    with pytest.raises(ModelMissing, match="reinstall"):
        demo_checkpoint()


def test_local_models_need_neither_the_hub_client_nor_numpy(tmp_path: Path) -> None:
    path = gguf(tmp_path / "x.gguf")
    code = (
        "import sys; from mofa_gguf.store import resolve; resolve(sys.argv[1]);"
        "heavy = {'huggingface_hub', 'numpy', 'llama_cpp'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=True, timeout=60)

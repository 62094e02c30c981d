"""A divided model's files, checked as a set."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest

from mofa_gguf.engine.engine import Engine
from mofa_gguf.engine.errors import ModelFileError
from mofa_gguf.engine.files.header import read_header
from mofa_gguf.engine.files.parts import read_parts
from mofa_gguf.engine.options import EngineOptions
from tests.support.tiny_gguf import write_tiny_llama
from tools.gguf_parts import Parts, take_apart

U16, U32, I32 = 2, 4, 5


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory) -> tuple[Parts, Parts]:
    """A tiny model in two files."""
    whole = take_apart(write_tiny_llama(tmp_path_factory.mktemp("whole") / "tiny.gguf"))
    middle = len(whole.tensors) // 2
    second = Parts([], whole.tensors[middle:])
    first = Parts(whole.pairs, whole.tensors[:middle])
    for number, part in enumerate((first, second)):
        part.set("split.no", U16, number)
        part.set("split.count", U16, 2)
        part.set("split.tensors.count", I32, len(whole.tensors))
    return first, second


def written(halves: tuple[Parts, Parts], folder: Path) -> Path:
    """Write both files; the first one's path."""
    paths = [folder / f"m-0000{n}-of-00002.gguf" for n in (1, 2)]
    for part, path in zip(halves, paths, strict=True):
        part.write(path)
    return paths[0]


@pytest.fixture
def changed(halves: tuple[Parts, Parts]) -> tuple[Parts, Parts]:
    return copy.deepcopy(halves)


def test_both_parts_make_a_model(halves: tuple[Parts, Parts], tmp_path: Path) -> None:
    path = written(halves, tmp_path)
    parts = read_parts(read_header(path))
    assert [part.path.name for part in parts] == ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"]
    engine = Engine.load(path, EngineOptions(n_ctx=64, n_threads=1))
    assert engine.model.n_layers == 2
    engine.close()


def refusal(path: Path) -> str:
    with pytest.raises(ModelFileError) as caught:
        Engine.load(path, EngineOptions(n_ctx=64, n_threads=1))
    return str(caught.value)


def test_the_second_part_alone_is_told_which_one_to_give(
    halves: tuple[Parts, Parts], tmp_path: Path
) -> None:
    path = written(halves, tmp_path)
    with pytest.raises(ModelFileError, match=r"ends in -00001-of-00002\.gguf"):
        read_parts(read_header(path.with_name("m-00002-of-00002.gguf")))


def test_a_missing_part_is_named(halves: tuple[Parts, Parts], tmp_path: Path) -> None:
    path = written(halves, tmp_path)
    path.with_name("m-00002-of-00002.gguf").unlink()
    assert "m-00002-of-00002.gguf: is missing: it is part 2 of 2" in refusal(path)


def test_a_name_without_numbers_is_not_the_first_part(
    halves: tuple[Parts, Parts], tmp_path: Path
) -> None:
    path = written(halves, tmp_path).rename(tmp_path / "model.gguf")
    assert "not the first by its name" in refusal(path)


@pytest.mark.parametrize(("kind", "number"), [(U16, 0), (U16, 7), (U32, 1)])
def test_a_part_that_says_another_number_is_refused(
    kind: int, number: int, changed: tuple[Parts, Parts], tmp_path: Path
) -> None:
    changed[1].set("split.no", kind, number)
    assert "does not say that it is" in refusal(written(changed, tmp_path))


def test_a_tensor_in_both_parts_is_refused(changed: tuple[Parts, Parts], tmp_path: Path) -> None:
    changed[1].tensors.append(changed[0].tensors[0])
    assert "hold the same tensor twice" in refusal(written(changed, tmp_path))


def test_parts_of_different_sets_are_refused(changed: tuple[Parts, Parts], tmp_path: Path) -> None:
    changed[1].tensors.pop()
    assert "and its other parts hold" in refusal(written(changed, tmp_path))


@pytest.mark.parametrize("count", [2**31, -1])
def test_an_absurd_number_of_parts_is_refused(
    count: int, changed: tuple[Parts, Parts], tmp_path: Path
) -> None:
    changed[0].set("split.count", I32, count)
    assert "it says that it is in" in refusal(written(changed, tmp_path))


def test_a_broken_second_part_is_refused_by_its_name(
    halves: tuple[Parts, Parts], tmp_path: Path
) -> None:
    path = written(halves, tmp_path)
    second = path.with_name("m-00002-of-00002.gguf")
    second.write_bytes(second.read_bytes()[:-500])
    assert "m-00002-of-00002.gguf: is truncated" in refusal(path)

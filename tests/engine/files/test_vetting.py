"""The probe in a process of its own, and what is remembered of files."""

from __future__ import annotations

import copy
import json
import logging
import os
from dataclasses import replace
from pathlib import Path

import pytest

from mofa_gguf.engine.errors import ModelFileError, UnsupportedModel
from mofa_gguf.engine.files import probe as probing
from mofa_gguf.engine.files import vetting
from mofa_gguf.engine.files.header import read_header
from mofa_gguf.engine.files.vetting import vet
from mofa_gguf.engine.options import EngineOptions
from tests.support.tiny_gguf import write_tiny_llama
from tools.gguf_parts import STRING, Parts, take_apart


@pytest.fixture(autouse=True)
def nothing_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vetting, "_passed", type(vetting._passed)())
    monkeypatch.setattr(vetting, "_LONG_HEADER", 0)


@pytest.fixture
def probed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that would have been probed; all of them are found to be sound."""
    seen: list[Path] = []

    def note(path: Path) -> None:
        seen.append(path)

    monkeypatch.setattr(vetting, "probe", note)
    return seen


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files whose contents were checked."""
    seen: list[Path] = []
    check = vetting.check_contents

    def note(parts: tuple[vetting.GGUFHeader, ...]) -> None:
        seen.append(parts[0].path)
        check(parts)

    monkeypatch.setattr(vetting, "check_contents", note)
    return seen


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_tiny_llama(tmp_path / "model.gguf")


def as_architecture(path: Path, name: bytes) -> Parts:
    """The model's parts, under the name of another architecture."""
    parts = take_apart(path)
    for pair in parts.pairs:
        pair.key = pair.key.replace(b"llama.", name + b".", 1)
    parts.set("general.architecture", STRING, name)
    return parts


def options(folder: Path | None = None, **changes: object) -> EngineOptions:
    return EngineOptions(n_ctx=64, verdicts=str(folder) if folder else None, **changes)  # type: ignore[arg-type]


def forget() -> None:
    """As a new process would begin."""
    vetting._passed.clear()


def test_known_architectures_are_not_probed_others_are(
    model: Path, probed: list[Path], tmp_path: Path
) -> None:
    vet(read_header(model), options(probe="auto"))
    assert probed == []
    other = as_architecture(model, b"xverse").write(tmp_path / "other.gguf")
    vet(read_header(other), options(probe="auto"))
    assert probed == [other]


def test_always_and_never_mean_that(model: Path, probed: list[Path], tmp_path: Path) -> None:
    other = as_architecture(model, b"xverse").write(tmp_path / "other.gguf")
    vet(read_header(other), options(probe="never"))
    assert probed == []
    vet(read_header(model), options(probe="always"))
    assert probed == [model]


def test_a_file_is_checked_once_in_a_process(
    model: Path, probed: list[Path], checked: list[Path]
) -> None:
    for _ in range(3):
        vet(read_header(model), options(probe="always"))
    assert (probed, checked) == ([model], [model])


def test_a_changed_file_is_checked_again(model: Path, checked: list[Path]) -> None:
    vet(read_header(model), options())
    os.utime(model, ns=(1, 1))
    vet(read_header(model), options())
    assert checked == [model, model]


def test_a_kept_verdict_serves_later_processes(
    model: Path, probed: list[Path], checked: list[Path], tmp_path: Path
) -> None:
    asked = options(tmp_path / "verdicts", probe="always")
    vet(read_header(model), asked)
    forget()
    vet(read_header(model), asked)
    assert (probed, checked) == ([model], [model])


def test_a_verdict_without_a_probe_is_not_enough_for_always(
    model: Path, probed: list[Path], tmp_path: Path
) -> None:
    folder = tmp_path / "verdicts"
    vet(read_header(model), options(folder))
    forget()
    vet(read_header(model), options(folder, probe="always"))
    assert probed == [model]


def test_the_same_weights_under_another_time_have_no_verdict(
    model: Path, checked: list[Path], tmp_path: Path
) -> None:
    asked = options(tmp_path / "verdicts")
    vet(read_header(model), asked)
    forget()
    os.utime(model, ns=(5, 5))
    vet(read_header(model), asked)
    assert len(checked) == 2


@pytest.mark.parametrize("text", ["", "{", "[]", '{"problem": 3, "probed": true}', "\0"])
def test_damaged_verdicts_count_as_none(
    text: str, model: Path, checked: list[Path], tmp_path: Path
) -> None:
    asked = options(tmp_path / "verdicts")
    vet(read_header(model), asked)
    (kept,) = (tmp_path / "verdicts").iterdir()
    kept.write_text(text)
    forget()
    vet(read_header(model), asked)
    assert len(checked) == 2


def test_a_folder_that_cannot_be_written_does_not_matter(model: Path, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    vet(read_header(model), options(blocked))
    assert blocked.read_text() == ""


def test_what_kills_the_other_process_is_refused_here_and_remembered(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probing, "_CODE", "import os; os.abort()")
    path = as_architecture(model, b"xverse").write(tmp_path / "deadly.gguf")
    asked = options(tmp_path / "verdicts", probe="auto")
    with pytest.raises(
        UnsupportedModel, match=r"ended the process that loaded it .*SIGABRT"
    ) as caught:
        vet(read_header(path), asked)
    assert "\n" not in str(caught.value)
    (kept,) = (tmp_path / "verdicts").iterdir()
    assert json.loads(kept.read_text())["problem"] == caught.value.problem
    monkeypatch.setattr(vetting, "probe", None)
    forget()
    with pytest.raises(ModelFileError, match="ended the process that loaded it"):
        vet(read_header(path), asked)


def test_a_sound_model_passes_the_probe(model: Path) -> None:
    assert probing.probe(model) is None


def test_what_the_other_process_refuses_is_told_in_its_words(model: Path, tmp_path: Path) -> None:
    parts = take_apart(model)
    parts.tensors.remove(parts.tensor("output_norm.weight"))
    path = parts.write(tmp_path / "m.gguf")
    problem = probing.probe(path)
    assert problem is not None
    assert "output_norm.weight" in problem


def test_a_process_that_takes_too_long_is_ended(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probing, "_START_S", 0.2)
    monkeypatch.setattr(probing, "_CODE", "import time; time.sleep(60)")
    with pytest.raises(ModelFileError, match="took over 0 s to load in a test process"):
        probing.probe(model)


def test_a_process_that_cannot_work_is_no_fault_of_the_file(
    model: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(probing, "_CODE", "raise SystemExit('no such thing')")
    with caplog.at_level(logging.WARNING, logger="mofa_gguf"):
        assert probing.probe(model) is None
        monkeypatch.setattr(probing.sys, "executable", "")
        assert probing.probe(model) is None
    assert "no such thing" in caplog.text
    assert "cannot start another" in caplog.text


def test_of_many_files_the_latest_are_remembered(
    model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(vetting, "_MOST_REMEMBERED", 2)
    parts = take_apart(model)
    for n in range(4):
        vet(read_header(copy.copy(parts).write(tmp_path / f"{n}.gguf")), options())
    assert [Path(next(iter(each))[0]).name for each in vetting._passed] == ["2.gguf", "3.gguf"]


def test_what_is_quick_to_check_again_leaves_no_verdict(
    model: Path, probed: list[Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(vetting, "_LONG_HEADER", 2**20)
    folder = tmp_path / "verdicts"
    vet(read_header(model), options(folder))
    assert not folder.exists()
    vet(read_header(model), options(folder, probe="always"))
    assert len(list(folder.iterdir())) == 1


def test_options_decide_nothing_about_known_files(model: Path, checked: list[Path]) -> None:
    vet(read_header(model), options())
    vet(read_header(model), replace(options(), n_ctx=128))
    assert len(checked) == 1

"""Every check of a written file can fail, and a file that fails one is gone."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mofa_gguf.convert import BadTensor, VerificationError, convert, verify
from mofa_gguf.convert.checkpoint import open_checkpoint
from mofa_gguf.convert.families import family_of
from mofa_gguf.convert.tokenizer import TokenizerMismatch, choosing
from mofa_gguf.engine.errors import OutOfMemory
from tests.convert.makers import CONFIG, PARITY, Tensors, llama_tensors, write_checkpoint


def _overflowing(tensors: Tensors) -> Tensors:
    return {**tensors, "model.norm.weight": np.full(64, 3e38, np.float32)}


def _mute(tensors: Tensors) -> Tensors:
    return {**tensors, "model.norm.weight": np.zeros(64, np.float32)}


@pytest.mark.parametrize(
    ("spoil", "says"),
    [(_overflowing, "the logits are NaN or infinite"), (_mute, "the logits are all the same")],
)
def test_weights_that_compute_nonsense_are_found_by_the_forward_pass(
    spoil: Any, says: str, tmp_path: Path
) -> None:
    source = write_checkpoint(tmp_path / "tiny", tensors=spoil(llama_tensors(CONFIG)))
    with pytest.raises(VerificationError, match=f"forward pass: {says}") as caught:
        convert(source, tmp_path / "x.gguf", "F32", threads=1)
    assert caught.value.check == "forward pass"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny"]


def test_huge_logits_are_finite_and_pass_without_a_warning(tmp_path: Path) -> None:
    tensors = {**llama_tensors(CONFIG), "model.norm.weight": np.full(64, 1e25, np.float32)}
    report = convert(
        write_checkpoint(tmp_path / "tiny", tensors=tensors), tmp_path / "x.gguf", "F32", threads=1
    )
    assert report.checks[-1].name == "forward pass"


def test_a_header_that_is_not_the_plan_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = verify.read_headers

    def without_a_tensor(path: Path) -> Any:
        return [replace(header, tensors=header.tensors[1:]) for header in original(path)]

    monkeypatch.setattr(verify, "read_headers", without_a_tensor)
    with pytest.raises(VerificationError, match="header: differs from the plan at") as caught:
        convert(write_checkpoint(tmp_path / "tiny"), tmp_path / "x.gguf", "F32", threads=1)
    assert caught.value.check == "header"
    assert not (tmp_path / "x.gguf").exists()


@pytest.mark.parametrize("layer", [0, 1])
def test_a_tensor_too_many_or_too_few_is_named(layer: int, tmp_path: Path) -> None:
    tensors = llama_tensors(CONFIG)
    name = f"model.layers.{layer}.mlp.up_proj.weight"
    more = {**tensors, f"model.layers.{layer}.mlp.side_proj.weight": tensors[name]}
    fewer = {key: value for key, value in tensors.items() if key != name}
    for number, (found, problem) in enumerate(((more, "is not part of"), (fewer, "is missing"))):
        source = write_checkpoint(tmp_path / f"tiny{number}", tensors=found)
        with pytest.raises(BadTensor, match=problem):
            convert(source, tmp_path / "x.gguf", "F32", dry_run=True)


FIXTURES = sorted(path for path in PARITY.iterdir() if path.is_dir())


@pytest.mark.parametrize("fixture", FIXTURES, ids=lambda path: path.name)
def test_every_source_tensor_is_in_the_report_once_used_or_skipped(
    fixture: Path,
) -> None:
    with open_checkpoint(fixture) as checkpoint:
        model = family_of(checkpoint).read()
        used = {name for tensor in model.tensors for name in tensor.weights.sources}
        assert used | set(model.skipped) == set(checkpoint.tensors)
        assert not used & set(model.skipped)
        assert all(re.search(r"\w", reason) for reason in model.skipped.values())


@pytest.mark.parametrize("quantization", ["F16", "Q8_0"])
def test_a_recurrent_models_matrices_may_be_of_any_type(quantization: str, tmp_path: Path) -> None:
    report = convert(PARITY / "mamba", tmp_path / "x.gguf", quantization, threads=1)
    types = {tensor.name: tensor.target_type for tensor in report.tensors}
    assert types["blk.0.ssm_dt.weight"] != "F32"
    assert report.checks[-1].name == "forward pass"


@pytest.fixture
def wordpiece(tmp_path: Path) -> Path:
    """A checkpoint with a WordPiece tokenizer."""
    return Path(shutil.copytree(PARITY / "distilbert", tmp_path / "bert"))


@pytest.fixture
def odd_wordpiece(wordpiece: Path) -> Path:
    """One that splits at white space alone, as llama.cpp cannot."""
    path = wordpiece / "tokenizer.json"
    document = json.loads(path.read_text("utf-8"))
    document["pre_tokenizer"] = {"type": "WhitespaceSplit"}
    path.write_text(json.dumps(document), "utf-8")
    return wordpiece


def test_llama_cpp_reads_a_wordpiece_vocabulary_once(
    wordpiece: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []
    original = choosing.VocabFile

    def counted(path: Path, **more: Any) -> Any:
        read.append(path)
        return original(path, **more)

    monkeypatch.setattr(choosing, "VocabFile", counted)
    checked = convert(wordpiece, tmp_path / "checked.gguf", "F32", threads=1)
    assert read == []
    unchecked = convert(wordpiece, tmp_path / "unchecked.gguf", "F32", threads=1, verify=False)
    assert len(read) == 1
    assert checked.warnings == unchecked.warnings
    assert checked.output.read_bytes() == unchecked.output.read_bytes()


@pytest.mark.parametrize("checked", [True, False])
def test_a_wordpiece_that_llama_cpp_splits_otherwise_is_refused_and_leaves_no_file(
    checked: bool, odd_wordpiece: Path, tmp_path: Path
) -> None:
    with pytest.raises(TokenizerMismatch, match="the tokenizer gives") as caught:
        convert(odd_wordpiece, tmp_path / "x.gguf", "F32", threads=1, verify=checked)
    assert caught.value.agreement.n_unexplained > 0
    assert [path.name for path in tmp_path.iterdir()] == ["bert"]


@pytest.mark.parametrize("checked", [True, False])
def test_an_allowed_mismatch_of_a_wordpiece_is_a_warning(
    checked: bool, odd_wordpiece: Path, tmp_path: Path
) -> None:
    report = convert(
        odd_wordpiece,
        tmp_path / "x.gguf",
        "F32",
        threads=1,
        verify=checked,
        allow_tokenizer_mismatch=True,
    )
    assert len([warning for warning in report.warnings if "unexplained" in warning]) == 1
    assert [check.name for check in report.checks] == checked * [
        "header",
        "vocabulary",
        "forward pass",
    ]


def test_a_wordpiece_is_not_left_unjudged_for_want_of_memory(
    odd_wordpiece: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OutOfMemory("no memory is left")

    monkeypatch.setattr(verify, "Probe", refuse)
    monkeypatch.setattr(verify, "VocabFile", refuse)
    with pytest.raises(VerificationError, match=r"vocabulary.*no memory is left"):
        convert(odd_wordpiece, tmp_path / "x.gguf", "F32", threads=1)
    assert [path.name for path in tmp_path.iterdir()] == ["bert"]

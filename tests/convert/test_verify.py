"""Every check of a written file can fail, and a file that fails one is gone."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mofa_gguf.convert import BadTensor, VerificationError, convert, verify
from mofa_gguf.convert.checkpoint import open_checkpoint
from mofa_gguf.convert.families import family_of
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

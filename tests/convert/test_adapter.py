"""LoRA adapters of PEFT: what llama.cpp computes with them is what the merged weights compute."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mofa_gguf.convert import (
    BadTensor,
    CheckpointError,
    OutputError,
    PickleRefused,
    UnknownQuantization,
    convert,
    convert_adapter,
)
from mofa_gguf.convert.adapter_config import read_adapter_config
from mofa_gguf.convert.safetensors_file import SafetensorsFile
from mofa_gguf.engine.files.header import read_header
from mofa_gguf.engine.models.logits import Probe
from mofa_gguf.engine.options import LoraAdapter
from tests.convert.makers import PARITY, Tensors, safetensors_bytes

ADAPTERS = PARITY.parent / "adapters"
FIXTURES = sorted(path for path in ADAPTERS.iterdir() if path.is_dir())
# llama.cpp looks GELU up in a table of 16-bit floats.
WITH_GELU = ("falcon", "gemma", "gpt2")
_A, _B = (f"base_model.model.model.layers.0.mlp.up_proj.lora_{side}.weight" for side in "AB")


def tensors_of(folder: Path) -> Tensors:
    file = SafetensorsFile(folder / "adapter_model.safetensors")
    return {name: file.array(name).copy() for name in file.tensors}


def base_of(adapter: Path) -> Path:
    return PARITY / (adapter / "base.txt").read_text().strip()


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """A copy of the Llama adapter, to be spoilt."""
    return Path(shutil.copytree(ADAPTERS / "llama", tmp_path / "adapter"))


def change_config(folder: Path, **values: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def change_tensors(folder: Path, tensors: Tensors) -> None:
    (folder / "adapter_model.safetensors").write_bytes(safetensors_bytes(tensors))


@pytest.mark.parametrize("adapter_folder", FIXTURES, ids=lambda path: path.name)
def test_logits_with_the_adapter_are_those_of_the_merged_weights(
    adapter_folder: Path, tmp_path: Path
) -> None:
    base = base_of(adapter_folder)
    reference = np.load(adapter_folder / "reference.npz")
    tokens, expected = reference["tokens"].tolist(), reference["logits"]
    model = convert(base, tmp_path / "base.gguf", "F32", threads=1, verify=False).output
    report = convert_adapter(adapter_folder, base, tmp_path / "adapter.gguf")
    assert [check.name for check in report.checks] == ["header"]
    with Probe(model, n_threads=1) as probe:
        without = probe.logits(tokens)
    with Probe(model, n_threads=1, lora=[LoraAdapter(str(report.output))]) as probe:
        logits = probe.logits(tokens)
    tolerance = 5e-2 if adapter_folder.name.startswith(WITH_GELU) else 2e-3
    np.testing.assert_allclose(logits, expected, atol=tolerance, rtol=0)
    lengths = np.linalg.norm(logits, axis=1) * np.linalg.norm(expected, axis=1)
    assert ((logits * expected).sum(axis=1) / lengths > 0.9999).all()
    assert (logits.argmax(axis=1) == expected.argmax(axis=1)).all()
    # Not the base model's, or nothing would be shown.
    assert np.abs(without - expected).max() > 20 * tolerance


def test_the_scale_of_a_setting_multiplies_the_adapter(tmp_path: Path) -> None:
    folder = ADAPTERS / "llama"
    model = convert(base_of(folder), tmp_path / "b.gguf", "F32", threads=1, verify=False).output
    whole = str(convert_adapter(folder, base_of(folder), tmp_path / "a.gguf").output)
    doubled = Path(shutil.copytree(folder, tmp_path / "doubled"))
    change_config(doubled, lora_alpha=10)
    twice = str(convert_adapter(doubled, base_of(folder), tmp_path / "d.gguf").output)

    def logits(*adapters: LoraAdapter) -> Any:
        with Probe(model, n_threads=1, lora=adapters) as probe:
            return probe.logits([9, 10, 11])

    plain = logits()
    np.testing.assert_array_equal(logits(LoraAdapter(whole, 0.0)), plain)
    np.testing.assert_allclose(
        logits(LoraAdapter(whole, 2.0)), logits(LoraAdapter(twice)), atol=1e-4
    )
    both = logits(LoraAdapter(whole, 0.5), LoraAdapter(twice, 0.25))
    np.testing.assert_allclose(both, logits(LoraAdapter(whole)), atol=1e-4)


def test_the_file_says_what_it_is(tmp_path: Path) -> None:
    folder = ADAPTERS / "qwen2"  # rank-stabilized: 5 / sqrt(2) of rank 2
    report = convert_adapter(folder, base_of(folder), tmp_path / "a.gguf", "F16")
    header = read_header(report.output)
    assert header.architecture == "qwen2"
    assert header.metadata["general.type"] == "adapter"
    assert header.metadata["adapter.type"] == "lora"
    assert header.metadata["adapter.lora.alpha"] == pytest.approx(5 * 2**0.5)
    assert header.metadata["general.base_model.0.name"] == "qwen2"
    assert {tensor.type.name for tensor in header.tensors} == {"F16"}
    assert "blk.0.attn_q.weight.lora_a" in {tensor.name for tensor in header.tensors}


def test_the_same_adapter_gives_the_same_bytes_and_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    folder = ADAPTERS / "gemma"
    dry = convert_adapter(folder, base_of(folder), tmp_path / "0.gguf", dry_run=True)
    assert list(tmp_path.iterdir()) == []
    files = [
        convert_adapter(folder, base_of(folder), tmp_path / name).output for name in ("1", "2")
    ]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert dry.n_bytes_out == files[0].stat().st_size


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"peft_type": "LOHA"}, "peft_type must be LORA"),
        ({"use_dora": True}, "use_dora is set"),
        ({"use_something_new": True}, "use_something_new is set"),
        ({"modules_to_save": ["lm_head"]}, r"modules_to_save is set \(\['lm_head'\]\)"),
        ({"bias": "all"}, "bias must be none"),
        ({"lora_bias": True}, "lora_bias"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights is 'pissa'"),
        ({"alora_invocation_tokens": [1, 2]}, "alora_invocation_tokens"),
        ({"trainable_token_indices": [1]}, "trainable_token_indices"),
        ({"target_parameters": ["experts.w"]}, "target_parameters"),
        ({"layer_replication": [[0, 1]]}, "layer_replication"),
        ({"lora_alpha": 0}, "lora_alpha must be above 0"),
        ({"lora_alpha": "much"}, "lora_alpha must not be 'much'"),
        ({"alpha_pattern": {"(a+)+$": 3}}, "patterns are not supported"),
        ({"alpha_pattern": {"q_proj": -3}}, "must be above 0"),
        ({"use_rslora": "yes"}, "use_rslora must be true or false"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_llama_cpp_cannot_compute_is_refused_by_name(
    adapter: Path, values: dict[str, Any], says: str, tmp_path: Path
) -> None:
    change_config(adapter, **values)
    with pytest.raises(CheckpointError, match=says):
        convert_adapter(adapter, PARITY / "llama", tmp_path / "x.gguf")
    assert not (tmp_path / "x.gguf").exists()


def _without_b(tensors: Tensors) -> Tensors:
    return {name: values for name, values in tensors.items() if name != _B}


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (_without_b, r"up_proj\.lora_B' is missing"),
        (lambda found: {**found, _B: found[_B][:, :1]}, "do not fit together"),
        (lambda found: {**found, _B: found[_B][:-1]}, "is this the right base"),
        (lambda found: {**found, _A: found[_A][:, 1:]}, "is this the right base"),
        (lambda found: {**found, _A: found[_A][0]}, "not a matrix's"),
        (lambda found: {**found, _A: found[_A] * np.float32("nan")}, "NaN"),
        (lambda found: {**found, _A.replace("layers.0", "layers.7"): found[_A]}, "is missing"),
        (lambda found: {**found, "base_model.model.lm_head.weight": found[_A]}, "whole tensor"),
        (lambda found: {**found, _A.replace("A.weight", "magnitude_vector"): found[_A]}, "DoRA"),
        (
            lambda found: {name.replace("up", "no"): found[name] for name in (_A, _B)},
            "is no module of a LlamaForCausalLM",
        ),
        (
            lambda found: {
                "base_model.model.model.norm.lora_A.weight": found[_A],
                "base_model.model.model.norm.lora_B.weight": found[_B],
            },
            "counts none",
        ),
        (lambda found: {}, "holds no tensor"),
    ],
)  # fmt: skip
def test_tensors_that_make_no_adapter_are_named(
    adapter: Path, spoil: Any, says: str, tmp_path: Path
) -> None:
    change_tensors(adapter, spoil(tensors_of(adapter)))
    with pytest.raises(BadTensor, match=says):
        convert_adapter(adapter, PARITY / "llama", tmp_path / "x.gguf")
    assert not (tmp_path / "x.gguf").exists()


def test_an_adapter_of_tied_embeddings_is_refused(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for name, (n_in, n_out) in {"embed_tokens": (320, 64), "lm_head": (64, 320)}.items():
        folder = Path(shutil.copytree(ADAPTERS / "llama-head", tmp_path / name))
        halves = [random.standard_normal(shape).astype("f4") for shape in ((2, n_in), (n_out, 2))]
        prefix = "base_model.model.model.embed_tokens.lora_embedding_"
        names = [f"{prefix}A", f"{prefix}B"]
        if name == "lm_head":
            names = [f"base_model.model.lm_head.lora_{side}.weight" for side in "AB"]
        change_tensors(folder, dict(zip(names, halves, strict=True)))
        with pytest.raises(BadTensor, match="output matrix is its token embeddings"):
            convert_adapter(folder, PARITY / "llama-gqa-tied", tmp_path / "x.gguf")


def test_copies_of_the_embeddings_beside_the_adapter_must_be_copies(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(ADAPTERS / "llama-head", tmp_path / "adapter"))
    base = SafetensorsFile(PARITY / "llama" / "model.safetensors")
    name = "model.embed_tokens.weight"
    original = base.array(name).copy()
    copy = f"base_model.model.{name.removesuffix('.weight')}.base_layer.weight"
    change_tensors(folder, {**tensors_of(folder), copy: original})
    convert_adapter(folder, PARITY / "llama", tmp_path / "a.gguf")
    change_tensors(folder, {**tensors_of(folder), copy: original[::-1].copy()})
    with pytest.raises(BadTensor, match="differs from the base checkpoint"):
        convert_adapter(folder, PARITY / "llama", tmp_path / "b.gguf")


def test_a_folder_without_an_adapter_is_named(adapter: Path, tmp_path: Path) -> None:
    base, target = PARITY / "llama", tmp_path / "x.gguf"
    with pytest.raises(CheckpointError, match=r"has no adapter_config\.json"):
        convert_adapter(base, base, target)
    with pytest.raises(CheckpointError, match="is no folder"):
        convert_adapter(adapter / "base.txt", base, target)
    with pytest.raises(UnknownQuantization, match="F32, F16, BF16"):
        convert_adapter(adapter, base, target, "Q4_K_M")
    target.write_text("precious")
    with pytest.raises(OutputError, match="exists already"):
        convert_adapter(adapter, base, target)
    (adapter / "adapter_model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"has no adapter_model\.safetensors"):
        convert_adapter(adapter, base, target, force=True)
    (adapter / "adapter_model.bin").write_bytes(b"\x80")
    with pytest.raises(PickleRefused):
        convert_adapter(adapter, base, target, force=True)
    assert target.read_text() == "precious"


def test_alphas_of_single_modules_go_by_the_end_of_their_names(adapter: Path) -> None:
    change_config(adapter, alpha_pattern={r"^model\.layers\.1\.mlp\.up_proj$": 7, "q_proj": 3}, r=9)
    config = read_adapter_config(adapter)
    scales = [
        config.scale(f"model.layers.{module}", 2)
        for module in (
            "1.mlp.up_proj",
            "0.mlp.up_proj",
            "0.self_attn.q_proj",
            "0.self_attn.oq_proj",
        )
    ]
    assert scales == [3.5, 2.5, 1.5, 2.5]

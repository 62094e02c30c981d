"""Gemma 3n: keys that layers share, rows that tokens lack, and what llama.cpp has built in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mofa_gguf.convert import convert
from mofa_gguf.convert.checkpoint import open_checkpoint
from mofa_gguf.convert.errors import CheckpointError
from mofa_gguf.convert.families import family_of
from mofa_gguf.convert.families.base import Model
from mofa_gguf.engine.models.logits import Probe
from tests.convert.makers import PARITY, Change, changed_fixture
from tests.support.deep_gemma3n import N_LAYERS, N_OWN, deepened, deeper

DATA = PARITY.parent


def read(tmp_path: Path, change: Change, tensors: Change | None = None) -> Model:
    """What the family makes of the fixture, changed."""
    with open_checkpoint(changed_fixture("gemma3n", tmp_path, change, tensors=tensors)) as found:
        return family_of(found).read()


def keys(model: Model) -> dict[str, Any]:
    return {key: value.data for key, value in model.metadata.items()}


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"altup_num_inputs": 3}, "altup_num_inputs must be 4"),
        ({"altup_active_idx": 1}, "altup_active_idx must be 0"),
        ({"altup_correct_scale": False}, "altup_correct_scale must be true"),
        ({"laurel_rank": 32}, "laurel_rank must be 64"),
        ({"hidden_size_per_layer_input": 128}, "hidden_size_per_layer_input must be 256"),
        ({"final_logit_softcapping": 20}, "final_logit_softcapping must be 30.0"),
        ({"final_logit_softcapping": None}, "final_logit_softcapping must be 30.0"),
        ({"num_kv_shared_layers": 1}, "must leave 20 layers for llama.cpp"),
        ({"activation_sparsity_pattern": [0.95, 0.0]}, "must be 0.95 for the first 10 layers"),
        ({"activation_sparsity_pattern": None}, "must be 0.95 for the first 10 layers"),
        ({"intermediate_size": [640, 64]}, "intermediate_size"),
        ({"vocab_size_per_layer_input": 400}, "vocab_size_per_layer_input"),
        ({"hidden_activation": "silu"}, "hidden_activation must be gelu_pytorch_tanh"),
    ],
)
def test_what_llama_cpp_has_built_in_otherwise_is_refused(
    changed: dict[str, Any], says: str, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=says):
        read(tmp_path, lambda config: config.update(changed))


def test_layers_that_share_keys_give_what_transformers_gives(tmp_path: Path) -> None:
    reference = np.load(DATA / "gemma3n_deep.npz")
    folder = changed_fixture("gemma3n", tmp_path, deeper, tensors=deepened)
    report = convert(folder, tmp_path / "model.gguf", "F32", threads=1)
    with Probe(report.output, n_threads=1) as probe:
        logits = probe.logits(reference["tokens"].tolist())
    expected = reference["logits"]
    assert (logits.argmax(axis=1) == expected.argmax(axis=1)).all()
    lengths = np.linalg.norm(logits, axis=1) * np.linalg.norm(expected, axis=1)
    assert ((logits * expected).sum(axis=1) / lengths > 0.9999).all()
    np.testing.assert_allclose(logits, expected, atol=1e-2, rtol=0)


def test_what_llama_cpp_demands_of_layers_that_share_keys_is_zeros(tmp_path: Path) -> None:
    folder = changed_fixture("gemma3n", tmp_path, deeper, tensors=deepened)
    with open_checkpoint(folder) as checkpoint:
        model = family_of(checkpoint).read()
        weights = {tensor.name: tensor.weights for tensor in model.tensors}
        for name in ("attn_k", "attn_v", "attn_k_norm"):
            own, shared = (weights[f"blk.{i}.{name}.weight"] for i in (N_OWN - 1, N_OWN))
            assert own.shape == shared.shape
            assert own.read(0, 1).any()
            assert not shared.read(0, shared.n_rows).any()
    assert keys(model)["gemma3n.attention.shared_kv_layers"] == N_LAYERS - N_OWN


def test_keys_that_a_released_checkpoint_has_in_vain_are_kept(tmp_path: Path) -> None:
    names = [f"model.layers.{N_LAYERS - 1}.self_attn.{part}" for part in ("k_proj", "k_norm")]

    def as_released(tensors: dict[str, Any]) -> None:
        deepened(tensors)
        for name in names:
            own = name.replace(str(N_LAYERS - 1), "0")
            tensors[f"{name}.weight"] = tensors[f"{own}.weight"]

    model = read(tmp_path, deeper, as_released)
    sources = {tensor.name: tensor.weights.sources for tensor in model.tensors}
    last = f"blk.{N_LAYERS - 1}"
    assert sources[f"{last}.attn_k.weight"] == (f"{names[0]}.weight",)
    assert sources[f"{last}.attn_k_norm.weight"] == (f"{names[1]}.weight",)
    assert sources[f"{last}.attn_v.weight"] == ()


def test_a_gemma_3n_s_layers_with_keys_must_end_as_llama_cpp_takes_them(tmp_path: Path) -> None:
    def change(config: dict[str, Any]) -> None:
        deeper(config)
        config["layer_types"] = ["full_attention"] * 2 + ["sliding_attention"] * 23

    with pytest.raises(CheckpointError, match="must end the layers with keys"):
        read(tmp_path, change)


def test_tokens_without_a_row_for_each_layer_take_the_first(tmp_path: Path) -> None:
    with open_checkpoint(PARITY / "gemma3n") as checkpoint:
        model = family_of(checkpoint).read()
        table = next(t.weights for t in model.tensors if t.name == "per_layer_token_embd.weight")
        stored = checkpoint.array("model.embed_tokens_per_layer.weight")
        assert table.shape == (320, 512)
        np.testing.assert_array_equal(table.read(0, 32), stored)
        for start, stop in ((30, 35), (40, 43), (0, 320)):
            rows = [i if i < len(stored) else 0 for i in range(start, stop)]
            np.testing.assert_array_equal(table.read(start, stop), stored[rows])


def test_the_text_part_of_a_gemma_3n_is_the_gemma_3n(tmp_path: Path) -> None:
    def wrap(config: dict[str, Any]) -> None:
        text = dict(config)
        config.clear()
        config["text_config"] = text
        config["architectures"] = ["Gemma3nForConditionalGeneration"]

    def rename(tensors: dict[str, Any]) -> None:
        for name in list(tensors):
            tensors[f"model.language_model.{name.removeprefix('model.')}"] = tensors.pop(name)
        others = ("vision_tower.x", "audio_tower.x", "embed_vision.x", "embed_audio.x")
        tensors.update({f"model.{name}.weight": np.ones((2, 2), np.float16) for name in others})

    alone = read(tmp_path / "alone", lambda config: None)
    model = read(tmp_path, wrap, rename)
    assert [tensor.name for tensor in model.tensors] == [tensor.name for tensor in alone.tensors]
    assert keys(model) == keys(alone)
    assert set(model.skipped.values()) == {"only the text part is converted"}

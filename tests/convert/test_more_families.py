"""What llama.cpp would compute otherwise is refused, and older forms of the same are read."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mofa_gguf.convert.checkpoint import open_checkpoint
from mofa_gguf.convert.errors import CheckpointError
from mofa_gguf.convert.families import family_of
from mofa_gguf.convert.families.base import Model
from tests.convert.makers import PARITY

Change = Callable[[dict[str, Any]], object]


def read(fixture: str, tmp_path: Path, change: Change) -> Model:
    """What a family makes of a fixture whose config.json was changed."""
    folder = tmp_path / fixture
    shutil.copytree(PARITY / fixture, folder, dirs_exist_ok=True)
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))
    with open_checkpoint(folder) as checkpoint:
        return family_of(checkpoint).read()


def keys(model: Model) -> dict[str, Any]:
    return {key: value.data for key, value in model.metadata.items()}


def in_text(**values: Any) -> Change:
    return lambda config: config["text_config"].update(values)


def in_rope(**values: Any) -> Change:
    return lambda config: config["rope_parameters"].update(values)


def in_text_rope(**values: Any) -> Change:
    return lambda config: config["text_config"]["rope_parameters"].update(values)


@pytest.mark.parametrize(
    ("fixture", "change", "says"),
    [
        ("arcee", lambda config: config.update(hidden_act="silu"), "hidden_act must be relu2"),
        ("arcee", lambda config: config.update(mlp_bias=True), "mlp_bias must be false"),
        ("seed-oss", lambda config: config.update(attention_out_bias=True), "attention_out_bias"),
        ("ernie4-5", lambda config: config.update(use_bias=True), "use_bias must be false"),
        ("nemotron", in_rope(partial_rotary_factor=0.4), "partial_rotary_factor"),
        ("gpt-bigcode", lambda config: config.update(multi_query=False), "multi_query"),
        ("mpt", lambda config: config.update(no_bias=False), "no_bias must be true"),
        ("mpt", lambda config: config["attn_config"].update(alibi=False), "alibi must be True"),
        ("mpt", lambda config: config["attn_config"].update(qk_ln=True), "qk_ln must be False"),
        ("mpt", lambda config: config["attn_config"].update(alibi_bias_max=0), "alibi_bias_max"),
        ("mpt", lambda config: config.update(attn_config=7), "attn_config must be an object"),
        ("qwen2-vl", in_text_rope(mrope_section=[2, 1]), "three sizes of 4"),
        ("qwen2-vl", in_text_rope(mrope_section=[2, 1, 2]), "three sizes of 4"),
        ("qwen2-vl", in_text_rope(mrope_section=[5, -2, 1]), "three sizes of 4"),
        ("qwen2-vl", in_text_rope(mrope_section="x"), "three sizes of 4"),
        ("qwen3-vl", lambda config: config.pop("text_config"), "text_config is missing"),
        (
            "qwen3-vl",
            lambda config: config["vision_config"].update(deepstack_visual_indexes=[0] * 9),
            "must be a list of layers",
        ),
        ("llava", in_text(model_type="gpt2"), "model_type must be one of cohere2, lfm2, llama"),
        ("mistral3-multimodal", in_text(model_type="gpt2"), "another architecture"),
        ("exaone4", lambda config: config.update(sliding_window=8), "must be None for llama.cpp"),
        ("ministral3", in_rope(beta_fast=16.0), "needs a yarn rope"),
        ("ministral3", in_rope(llama_4_scaling_beta=-1), "llama_4_scaling_beta"),
    ],
)
def test_what_llama_cpp_would_compute_otherwise_is_refused(
    fixture: str, change: Change, says: str, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=says):
        read(fixture, tmp_path, change)


def test_the_text_of_a_qwen_vl_may_stand_beside_the_rest_of_its_configuration(
    tmp_path: Path,
) -> None:
    def flatten(config: dict[str, Any]) -> None:
        config.update(config.pop("text_config"))
        rope = config.pop("rope_parameters")
        config["rope_theta"] = rope["rope_theta"]
        config["rope_scaling"] = {"type": "mrope", "mrope_section": rope["mrope_section"]}

    flat = read("qwen2-vl", tmp_path, flatten)
    nested = read("qwen2-vl", tmp_path / "nested", lambda config: None)
    assert keys(flat) == keys(nested)
    assert keys(flat)["qwen2vl.rope.dimension_sections"] == [2, 1, 1, 0]


def test_names_of_the_vision_part_are_left_out_with_the_reason(tmp_path: Path) -> None:
    for fixture in ("qwen2-vl", "qwen25-vl", "qwen3-vl", "llava", "ministral3-multimodal"):
        model = read(fixture, tmp_path, lambda config: None)
        assert set(model.skipped.values()) == {"only the text part is converted"}, fixture
        assert any("sees images too" in warning for warning in model.warnings)


def test_one_class_may_hold_a_mistral_or_a_ministral(tmp_path: Path) -> None:
    assert read("mistral3-multimodal", tmp_path, lambda config: None).architecture == "llama"
    model = read("ministral3-multimodal", tmp_path, lambda config: None)
    assert model.architecture == "mistral3"
    assert keys(model)["mistral3.attention.temperature_scale"] == pytest.approx(0.3)


def test_a_ministral_without_a_stretched_context_has_no_temperature(tmp_path: Path) -> None:
    plain = {"rope_type": "default", "rope_theta": 1e6}
    model = read("ministral3", tmp_path, lambda config: config.update(rope_parameters=plain))
    assert "mistral3.attention.temperature_scale" not in model.metadata


def test_the_norms_of_a_nemotron_hold_one_plus_the_weight(tmp_path: Path) -> None:
    model = read("nemotron", tmp_path, lambda config: None)
    with open_checkpoint(PARITY / "nemotron") as checkpoint:
        stored = checkpoint.array("model.norm.weight").astype(np.float32)
        weights = {tensor.name: tensor.weights for tensor in model.tensors}
        found = weights["output_norm.weight"].read(0, 1)[0]
    np.testing.assert_array_equal(found, stored + 1)


def test_the_oldest_name_of_llama_is_known(tmp_path: Path) -> None:
    def rename(config: dict[str, Any]) -> None:
        config["architectures"] = ["LLaMAForCausalLM"]

    assert read("llama", tmp_path, rename).architecture == "llama"

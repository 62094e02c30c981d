"""Families with experts, state spaces and convolutions: older forms are read, others refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mofa_gguf.convert.checkpoint import open_checkpoint
from mofa_gguf.convert.errors import CheckpointError
from mofa_gguf.convert.families import family_of
from mofa_gguf.convert.families.base import Model
from mofa_gguf.convert.weights import to_float32
from tests.convert.makers import Change, changed_fixture

LINEAR, FULL = "linear_attention", "full_attention"


def unchanged(values: dict[str, Any]) -> None:
    """For what stays as it is."""


def read(
    fixture: str, folder: Path, change: Change = unchanged, *, tensors: Change | None = None
) -> Model:
    with open_checkpoint(changed_fixture(fixture, folder, change, tensors=tensors)) as checkpoint:
        return family_of(checkpoint).read()


def described(model: Model) -> tuple[dict[str, Any], list[Any]]:
    keys = {key: value.data for key, value in model.metadata.items()}
    return keys, [(tensor.name, tensor.weights.shape) for tensor in model.tensors]


def values_of(path: Path) -> dict[str, np.ndarray[Any, np.dtype[np.float32]]]:
    """Everything that would be written, as float32."""
    with open_checkpoint(path) as checkpoint:
        tensors = family_of(checkpoint).read().tensors
        return {
            tensor.name: to_float32(
                tensor.weights.read(0, tensor.weights.n_rows), tensor.weights.dtype
            ).reshape(tensor.weights.shape)
            for tensor in tensors
        }


def setting(**values: Any) -> Change:
    return lambda config: config.update(values)


def renaming(**names: str) -> Change:
    """Values under the names that older files have."""
    return lambda config: config.update({new: config.pop(old) for old, new in names.items()})


@pytest.mark.parametrize(
    ("fixture", "change", "says"),
    [
        ("glm4-moe", setting(n_group=4), "n_group must part 6 experts"),
        ("glm4-moe-lite", setting(mlp_layer_types=["sparse", "dense", "sparse"]), "dense before"),
        ("glm4-moe-lite", setting(mlp_layer_types=["dense"]), "list of 3 of dense, sparse"),
        ("glm4-moe-lite", setting(rope_interleave=False), "rope_interleave must be true"),
        ("llama4", setting(use_qk_norm=False), "use_qk_norm must be true .* with 3 experts"),
        ("llama4", setting(no_rope_layers=[1, 1, 1, 1]), "no_rope_layers must be"),
        ("llama4", setting(layer_types=[FULL] * 4), "layer_types must be"),
        ("llama4", setting(moe_layers=[0, 1]), "moe_layers must be"),
        ("llama4", setting(attention_chunk_size=16), "attention_chunk_size must be 8192"),
        ("lfm2", setting(conv_bias=True), "conv_bias must be false"),
        ("lfm2", setting(layer_types=["conv"] * 3), "must hold conv and full_attention"),
        ("lfm2", setting(layer_types=["conv", FULL, "x"]), "layer_types must be a list of 3"),
        ("lfm2", setting(conv_L_cache=1), "conv_L_cache must be a whole number from 2"),
        ("lfm2-moe", setting(use_expert_bias=False), "use_expert_bias must be true"),
        ("qwen3-next", setting(linear_value_head_dim=16), "linear_value_head_dim must be 8"),
        ("qwen3-next", setting(linear_num_value_heads=3), "must be a multiple of 2"),
        ("qwen3-next", setting(norm_topk_prob=False), "norm_topk_prob must be true"),
        ("qwen35", setting(layer_types=[LINEAR] * 3), "must hold linear_attention and full"),
        ("granite-hybrid", setting(mamba_conv_bias=False), "mamba_conv_bias must be true"),
        ("granite-hybrid", setting(mamba_d_head=8), "mamba_d_head must make 64"),
        ("granite-hybrid", setting(mamba_n_groups=3), "mamba_n_groups must divide 4 heads"),
        ("granite-hybrid", setting(layer_types=[LINEAR] * 3), "must hold full_attention"),
        ("granite4-dense", setting(position_embedding_type="nope"), "position_embedding_type"),
        ("mamba2", setting(time_step_limit=[0.0, 0.5]), "time_step_limit must be from 0"),
        ("mamba2", setting(time_step_limit="x"), "time_step_limit must be from 0"),
        ("mamba2", setting(use_bias=True), "use_bias must be false"),
        ("nemotron-h", setting(layers_block_type=["mlp", FULL]), "must hold linear_attention"),
        ("nemotron-h", setting(layers_block_type=[]), "must be 1 to 512 layers"),
        ("nemotron-h", setting(mlp_hidden_act="silu"), "mlp_hidden_act must be relu2"),
        ("nemotron-h-moe", setting(n_group=2), "topk_group must be n_group"),
        (
            "nemotron-h-moe",
            setting(layers_block_type=[LINEAR, "moe", FULL, "mlp"]),
            "not both mlp and moe",
        ),
        ("falcon-h1", setting(mamba_norm_before_gate=True), "mamba_norm_before_gate must be false"),
        ("falcon-h1", setting(mamba_d_ssm=48, mamba_d_head=8), "mamba_d_ssm must be 32"),
        ("falcon-h1", setting(ssm_multipliers=[1.0]), "ssm_multipliers must be a list of 5"),
        ("jamba", setting(attn_layer_period=1, attn_layer_offset=0), "attn_layer_period"),
        ("dots1", setting(num_key_value_heads=2), "num_key_value_heads must be 4"),
        ("ernie4-5-moe", setting(moe_layer_interval=2), "moe_layer_interval must be 1"),
        ("ernie4-5-moe", setting(moe_layer_end_index=0), "moe_layer_end_index must be 1"),
        ("minimax-m2", setting(scoring_func="softmax"), "scoring_func must be"),
        ("hunyuan-moe", setting(moe_topk=[1, 2]), "moe_topk must be one number for all layers"),
        ("hunyuan-moe", setting(moe_intermediate_size=[8, 8]), "moe_intermediate_size must be 24"),
        ("apertus", setting(hidden_act="silu"), "hidden_act must be xielu"),
        ("apertus", setting(post_norm=True), "post_norm must be false"),
    ],
)
def test_what_llama_cpp_would_compute_otherwise_is_refused(
    fixture: str, change: Change, says: str, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=says):
        read(fixture, tmp_path, change)


@pytest.mark.parametrize(
    ("fixture", "change"),
    [
        ("lfm2", renaming(tie_word_embeddings="tie_embedding", intermediate_size="block_ff_dim")),
        ("lfm2", lambda config: config.update(layer_types=None, full_attn_idxs=[1])),
        ("granite-hybrid", setting(layer_types=["mamba", "attention", "mamba"])),
        ("granite-hybrid", renaming(layer_types="layers_block_type")),
        ("granite-hybrid", setting(mamba_d_head="auto")),
        ("nemotron-h", renaming(layers_block_type="layer_types")),
        (
            "nemotron-h",
            lambda config: config.update(layers_block_type=None, hybrid_override_pattern="M-*M"),
        ),
        (
            "nemotron-h-moe",
            lambda config: config.update(layers_block_type=None, hybrid_override_pattern="ME*E"),
        ),
        ("falcon-h1", setting(mamba_d_head="auto")),
        ("hunyuan-moe", setting(moe_topk=2, num_shared_expert=[1, 1], moe_intermediate_size=[24])),
        ("ernie4-5-moe", renaming(moe_k="num_experts_per_tok", moe_num_experts="num_experts")),
        ("minimax-m2", lambda config: config["rope_parameters"].pop("partial_rotary_factor")),
        ("mamba2", setting(time_step_limit=[0.0, "inf"])),
        ("glm4-moe-lite", renaming(mlp_layer_types="unknown")),
    ],
)
def test_older_names_and_forms_mean_the_same(fixture: str, change: Change, tmp_path: Path) -> None:
    def older(config: dict[str, Any]) -> None:
        if fixture == "minimax-m2":
            config["rotary_dim"] = 8
        change(config)

    assert described(read(fixture, tmp_path / "older", older)) == described(read(fixture, tmp_path))


@pytest.mark.parametrize(
    ("fixture", "experts", "layers", "architecture"),
    [
        ("granite-hybrid", 3, [LINEAR, FULL, LINEAR], "granitehybrid"),
        ("granite-hybrid-dense", 0, [LINEAR, FULL, LINEAR], "granitehybrid"),
        ("granite4-dense", 0, [FULL] * 2, "granite"),
        ("granite-hybrid", 3, [FULL] * 3, "granitemoe"),
    ],
)
def test_one_class_of_granite_holds_four_shapes(
    fixture: str, experts: int, layers: list[str], architecture: str, tmp_path: Path
) -> None:
    change = setting(num_local_experts=experts, layer_types=layers, position_embedding_type="rope")
    path = changed_fixture(fixture, tmp_path, change)
    with open_checkpoint(path) as checkpoint:
        assert family_of(checkpoint).architecture == architecture


def test_nemotrons_with_experts_are_another_architecture(tmp_path: Path) -> None:
    assert read("nemotron-h", tmp_path).architecture == "nemotron_h"
    assert read("nemotron-h-moe", tmp_path).architecture == "nemotron_h_moe"


def test_layers_of_a_hybrid_without_attention_have_no_heads(tmp_path: Path) -> None:
    for fixture, prefix in (("lfm2", "lfm2"), ("granite-hybrid", "granitehybrid")):
        keys, _ = described(read(fixture, tmp_path))
        assert keys[f"{prefix}.attention.head_count_kv"] == [0, 2, 0]
    keys, _ = described(read("qwen3-next", tmp_path))
    assert keys["qwen3next.attention.recurrent_layers"] == [True, False, True]


def test_a_regular_order_of_layers_is_told_to_programs_that_know_no_other(tmp_path: Path) -> None:
    keys, _ = described(read("qwen35-multimodal", tmp_path))
    assert keys["qwen35.full_attention_interval"] == 4
    keys, _ = described(read("qwen35", tmp_path))
    assert "qwen35.full_attention_interval" not in keys


@pytest.mark.parametrize(
    ("fixture", "name"),
    [
        ("glm4-moe", "model.layers.2.eh_proj.weight"),
        ("qwen3-next", "mtp.fc.weight"),
        ("nemotron-h-moe", "mtp.layers.0.eh_proj.weight"),
        ("ernie4-5-moe", "model.mtp_block.0.mlp.up_proj.weight"),
    ],
)
def test_what_predicts_further_tokens_is_left_out_with_the_reason(
    fixture: str, name: str, tmp_path: Path
) -> None:
    def add(tensors: dict[str, Any]) -> None:
        tensors[name] = np.zeros((2, 2), np.float16)

    skipped = read(fixture, tmp_path, tensors=add).skipped
    assert "predicts further tokens" in skipped[name]


def test_experts_of_a_qwen3_vl_may_be_stored_either_way_round(tmp_path: Path) -> None:
    def turn(tensors: dict[str, Any]) -> None:
        for name, values in tensors.items():
            if ".experts." in name:
                tensors[name] = np.ascontiguousarray(values.swapaxes(1, 2))

    in_memory = changed_fixture("qwen3-vl-moe", tmp_path / "in_memory", unchanged)
    published = changed_fixture("qwen3-vl-moe", tmp_path / "published", unchanged, tensors=turn)
    expected, found = values_of(in_memory), values_of(published)
    assert list(found) == list(expected)
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values)


def test_the_dense_layers_of_the_first_jambas_are_stored_as_one_expert(tmp_path: Path) -> None:
    def older(tensors: dict[str, Any]) -> None:
        for name in [name for name in tensors if ".feed_forward." in name]:
            values = tensors.pop(name)
            former = name.replace(".feed_forward.", ".moe.")
            if ".experts." not in former and ".router." not in former:
                former = former.replace(".moe.", ".moe.experts.0.")
            tensors[former] = values

    assert described(read("jamba", tmp_path / "older", tensors=older)) == described(
        read("jamba", tmp_path)
    )


def test_the_correction_of_a_nemotrons_router_has_two_spellings(tmp_path: Path) -> None:
    def older(tensors: dict[str, Any]) -> None:
        for name in [name for name in tensors if name.endswith("e_score_correction_bias")]:
            former = name.replace("e_score_correction_bias", "e_score_correction.bias")
            tensors[former] = tensors.pop(name)

    assert described(read("nemotron-h-moe", tmp_path / "older", tensors=older)) == described(
        read("nemotron-h-moe", tmp_path)
    )


def test_a_falcon_whose_embeddings_are_tied_gets_an_output_matrix_of_its_own(
    tmp_path: Path,
) -> None:
    values = values_of(changed_fixture("falcon-h1-tied", tmp_path, unchanged))
    # embedding_multiplier and lm_head_multiplier of the fixture.
    np.testing.assert_allclose(
        values["output.weight"] / 0.4, values["token_embd.weight"] / 2.5, rtol=1e-5
    )


def test_an_alpha_stretches_the_rope_of_a_hunyuan_and_its_context(tmp_path: Path) -> None:
    keys, _ = described(read("hunyuan-moe", tmp_path))
    assert keys["hunyuan-moe.rope.freq_base"] == pytest.approx(10_000 * 20 ** (16 / 14))
    assert keys["hunyuan-moe.context_length"] == 2**18
    keys, _ = described(read("hunyuan-dense", tmp_path))
    assert keys["hunyuan-dense.rope.freq_base"] == 10_000
    assert keys["hunyuan-dense.context_length"] == 128


def test_the_numbers_of_an_apertus_activation_become_metadata(tmp_path: Path) -> None:
    model = read("apertus", tmp_path)
    keys, tensors = described(model)
    assert len(keys["xielu.alpha_n"]) == len(keys["xielu.alpha_p"]) == 2
    assert keys["xielu.beta"] == pytest.approx([0.5, 0.5], rel=1e-2)
    assert not any("act_fn" in name for name, _ in tensors)
    assert set(model.skipped.values()) == {"a number, which is kept in the metadata"}


def test_llama_4_tells_where_its_temperature_is_another(tmp_path: Path) -> None:
    long = {"max_position_embeddings": 2**17}
    tuned = read("llama4", tmp_path / "tuned", setting(**long, attn_temperature_tuning=4))
    assert not any("scales the queries" in warning for warning in tuned.warnings)
    untuned = read("llama4", tmp_path, setting(**long, attn_temperature_tuning=False))
    assert any("scales the queries" in warning for warning in untuned.warnings)

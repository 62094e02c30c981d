"""Models with experts and other kinds: spellings of config.json, and what llama.cpp cannot do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mofa_gguf.convert.checkpoint import open_checkpoint
from mofa_gguf.convert.errors import BadTensor, CheckpointError
from mofa_gguf.convert.families import family_of
from mofa_gguf.convert.families.base import Model
from tests.convert.makers import PARITY, Tensors, safetensors_bytes

Read = Callable[..., Model]

OLD_YARN = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Read a fixture with other values in its config.json (None removes one), or other tensors."""

    def read_changed(name: str, *, tensors: Tensors | None = None, **changes: Any) -> Model:
        folder = tmp_path / "checkpoint"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(PARITY / name, folder)
        config = json.loads((folder / "config.json").read_text()) | changes
        gone = {key for key, value in changes.items() if value is None}
        kept = {key: value for key, value in config.items() if key not in gone}
        (folder / "config.json").write_text(json.dumps(kept))
        if tensors is not None:
            (folder / "model.safetensors").write_bytes(safetensors_bytes(tensors))
        with open_checkpoint(folder) as checkpoint:
            return family_of(checkpoint).read()

    return read_changed


def tensors_of(name: str) -> Tensors:
    with open_checkpoint(PARITY / name) as checkpoint:
        return {source: np.array(checkpoint.array(source)) for source in checkpoint.tensors}


def facts(model: Model) -> dict[str, object]:
    return {key: value.data for key, value in model.metadata.items()}


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("mixtral", {"rope_parameters": None, "rope_theta": 1e6}),
        (
            "deepseek-v3",
            {
                "rope_parameters": None,
                "rope_theta": 10000,
                "rope_scaling": {**OLD_YARN, "mscale": 1.0, "mscale_all_dim": 1.0},
                "scoring_func": "sigmoid",
                "topk_method": "noaux_tc",
                "moe_layer_freq": 1,
                "head_dim": None,
            },
        ),
        (
            "gpt-oss",
            {
                "rope_parameters": None,
                "rope_theta": 10000,
                "rope_scaling": {**OLD_YARN, "rope_type": "yarn", "beta_fast": 32.0},
            },
        ),
        (
            "nomic-bert",
            {
                "hidden_size": None,
                "n_embd": 32,
                "num_attention_heads": None,
                "n_head": 4,
                "num_hidden_layers": None,
                "n_layer": 2,
                "intermediate_size": None,
                "n_inner": 48,
                "max_position_embeddings": None,
                "n_positions": 64,
                "hidden_act": None,
                "activation_function": "swiglu",
                "layer_norm_eps": None,
                "layer_norm_epsilon": 1e-12,
                "rope_parameters": None,
                "rotary_emb_base": 1000,
                "qkv_proj_bias": False,
            },
        ),
    ],
)
def test_older_configurations_say_the_same(name: str, changes: dict[str, Any], read: Read) -> None:
    new, old = read(name), read(name, **changes)
    added = {key: value for key, value in facts(new).items() if key not in facts(old)}
    # Old configurations leave the size of a head to be derived.
    assert all(key.endswith(("key_length", "value_length")) for key in added)
    assert facts(old) == {key: value for key, value in facts(new).items() if key not in added}
    assert [tensor.name for tensor in old.tensors] == [tensor.name for tensor in new.tensors]


@pytest.mark.parametrize(
    ("name", "changes", "reason"),
    [
        ("mixtral", {"num_local_experts": 1}, "num_local_experts"),
        ("mixtral", {"num_experts_per_tok": 4}, "num_experts_per_tok"),
        ("qwen2-moe", {"norm_topk_prob": True}, "norm_topk_prob must be false"),
        ("qwen2-moe", {"mlp_only_layers": [0]}, "mlp_only_layers"),
        ("qwen2-moe", {"decoder_sparse_step": 2}, "decoder_sparse_step"),
        ("qwen3-moe", {"norm_topk_prob": False}, "norm_topk_prob must be true"),
        ("mamba", {"intermediate_size": 48}, "twice 32"),
        ("olmoe", {"clip_qkv": 8.0}, "clip_qkv"),
        ("mamba", {"use_bias": True}, "use_bias"),
        ("deepseek-v2", {"attention_bias": True}, "attention_bias"),
        ("deepseek-v2", {"norm_topk_prob": True}, "norm_topk_prob"),
        ("deepseek-v3", {"n_group": 4}, "n_group"),
        ("deepseek-v3", {"num_hidden_layers": 27}, "q_lora_rank"),
        ("deepseek-v3", {"rope_interleave": False}, "rope_interleave"),
        (
            "deepseek-v3",
            {"rope_parameters": {**OLD_YARN, "mscale": 0.7, "mscale_all_dim": 1.0}},
            "mscale",
        ),
        ("gpt-oss", {"swiglu_limit": 5.0}, "swiglu_limit"),
        ("gpt-oss-mxfp4", {"hidden_size": 40}, "multiple of 32"),
        ("gpt-oss", {"layer_types": ["full_attention"] * 2}, "sliding_attention at least once"),
        (
            "gemma-embedding",
            {"layer_types": ["sliding_attention"] * 3},
            "full_attention at least once",
        ),
        ("mixtral", {"rope_parameters": {"rope_theta": 0}}, "rope_theta"),
        ("roberta", {"max_position_embeddings": 2}, "max_position_embeddings"),
        ("nomic-bert", {"moe_every_n_layers": 2}, "moe_every_n_layers"),
        ("gemma-embedding", {"use_bidirectional_attention": False}, "use_bidirectional_attention"),
    ],
)
def test_what_llama_cpp_cannot_express_is_refused_by_name(
    name: str, changes: dict[str, Any], reason: str, read: Read
) -> None:
    with pytest.raises(CheckpointError, match=reason):
        read(name, **changes)


def test_a_missing_expert_is_named(read: Read) -> None:
    tensors = tensors_of("mixtral")
    lost = "model.layers.1.block_sparse_moe.experts.2.w3.weight"
    del tensors[lost]
    with pytest.raises(BadTensor, match="is missing") as caught:
        read("mixtral", tensors=tensors)
    assert caught.value.tensor == lost


def test_experts_in_one_tensor_and_one_by_one_are_the_same(read: Read) -> None:
    tensors = tensors_of("mixtral")
    fused: Tensors = {}
    for name, values in tensors.items():
        if ".experts." not in name:
            fused[name.replace(".block_sparse_moe.", ".mlp.")] = values
    for i in range(2):
        source, target = f"model.layers.{i}.block_sparse_moe.experts", f"model.layers.{i}.mlp"
        gates, ups, downs = (
            [tensors[f"{source}.{e}.{part}.weight"] for e in range(3)]
            for part in ("w1", "w3", "w2")
        )
        both = [np.concatenate(pair) for pair in zip(gates, ups, strict=True)]
        fused[f"{target}.experts.gate_up_proj"] = np.stack(both)
        fused[f"{target}.experts.down_proj"] = np.stack(downs)

    def contents(model: Model) -> dict[str, bytes]:
        return {
            tensor.name: tensor.weights.read(0, tensor.weights.n_rows).tobytes()
            for tensor in model.tensors
        }

    single = contents(read("mixtral"))
    assert contents(read("mixtral", tensors=fused)) == single


def test_layers_that_predict_further_tokens_are_left_out(read: Read) -> None:
    tensors = tensors_of("deepseek-v3")
    further = "model.layers.2.eh_proj.weight"
    tensors[further] = np.zeros((32, 64), dtype=np.float16)
    assert "further tokens" in read("deepseek-v3", tensors=tensors).skipped[further]


def test_deepseek_v2_s_other_ranking_of_groups_is_told(read: Read) -> None:
    groups = {"n_group": 2, "topk_group": 1}
    assert "deepseek2.expert_group_count" not in facts(read("deepseek-v2", **groups))
    limited = read("deepseek-v2", topk_method="group_limited_greedy", **groups)
    assert facts(limited)["deepseek2.expert_group_count"] == 2
    assert any("groups of experts" in warning for warning in limited.warnings)


def test_bounds_of_yarn_that_llama_cpp_rounds_are_told(read: Read) -> None:
    model = read("gpt-oss", rope_parameters={**OLD_YARN, "rope_type": "yarn", "truncate": False})
    assert facts(model)["gpt-oss.rope.scaling.type"] == "yarn"
    assert any("YaRN" in warning for warning in model.warnings)
    assert not any("YaRN" in warning for warning in read("gpt-oss").warnings)


def test_one_epsilon_for_all_norms_of_falcon_mamba_is_told(read: Read) -> None:
    assert read("falcon-mamba").warnings == ()
    assert "epsilon 1e-06" in read("falcon-mamba", mixer_rms_eps=1e-6).warnings[0]


def test_the_matrices_behind_the_pooling_must_fit_the_model(tmp_path: Path, read: Read) -> None:
    model = read("gemma-embedding")
    shapes = {tensor.name: tensor.weights.shape for tensor in model.tensors}
    assert (shapes["dense_2.weight"], shapes["dense_3.weight"]) == ((40, 32), (32, 40))
    folder = tmp_path / "checkpoint" / "3_Dense"
    other = {"linear.weight": np.zeros((16, 40), dtype=np.float32)}
    (folder / "model.safetensors").write_bytes(safetensors_bytes(other))
    with (
        open_checkpoint(folder.parent) as checkpoint,
        pytest.raises(BadTensor, match="must have 32 rows"),
    ):
        family_of(checkpoint).read()

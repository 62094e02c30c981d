"""Options that few checkpoints have: computed rightly, or refused by name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mofa_gguf.convert.checkpoint import open_checkpoint
from mofa_gguf.convert.errors import CheckpointError
from mofa_gguf.convert.families import family_of
from mofa_gguf.convert.families.base import Model
from tests.convert.makers import PARITY

Read = Callable[..., Model]

ABSENT = object()
"""Takes a value out of config.json."""


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Read a fixture with other values in its config.json, or in the text's part of it."""

    def read_changed(name: str, *, text: bool = False, **changes: Any) -> Model:
        folder = tmp_path / "checkpoint"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(PARITY / name, folder)
        config = json.loads((folder / "config.json").read_text())
        values = config["text_config"] if text else config
        values |= changes
        for key in [key for key, value in changes.items() if value is ABSENT]:
            del values[key]
        (folder / "config.json").write_text(json.dumps(config))
        with open_checkpoint(folder) as checkpoint:
            return family_of(checkpoint).read()

    return read_changed


_YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
_LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 32}
_EIGHTHS = {"long_factor": [1.0] * 4, "short_factor": [1.0] * 4}
_LONGROPE = {"rope_type": "longrope", "original_max_position_embeddings": 16, **_EIGHTHS}


def _in_full_layers(**settings: Any) -> dict[str, Any]:
    sliding = {"rope_type": "default", "rope_theta": 3000.0}
    return {"full_attention": {**_YARN, **settings}, "sliding_attention": sliding}


@pytest.mark.parametrize("name", ["gemma3", "gemma-embedding", "gemma3n"])
@pytest.mark.parametrize(
    "factors", [{"attention_factor": 1.4}, {"mscale": 0.7, "mscale_all_dim": 1.2}]
)
def test_an_attention_factor_that_layers_with_a_window_would_get_too_is_refused(
    name: str, factors: dict[str, float], read: Read
) -> None:
    assert read(name, rope_parameters=_in_full_layers())
    with pytest.raises(CheckpointError, match="rope_parameters ask for an attention factor"):
        read(name, rope_parameters=_in_full_layers(**factors))


def test_a_cap_that_transformers_does_not_apply_is_refused(read: Read) -> None:
    assert read("gemma3", final_logit_softcapping=1.5)
    with pytest.raises(CheckpointError, match=r"text_config\.final_logit_softcapping must be null"):
        read("gemma3-multimodal", text=True, final_logit_softcapping=1.5)


# A fixture, what its configuration says instead, and what the refusal speaks of.
REFUSED: list[tuple[str, dict[str, Any], str]] = [
    (
        "deepseek-v2",
        {"rope_parameters": {"rope_type": "linear", "factor": 3.0}},
        "rope_type must be default or yarn",
    ),
    (
        "deepseek-v3",
        {"rope_parameters": {"rope_type": "linear", "factor": 3.0}},
        "rope_type must be default or yarn",
    ),
    (
        "falcon-h1",
        {"rope_parameters": {**_LLAMA3, "rope_theta": 1e4}},
        "ask for a llama3 scaling that llama.cpp does not know for falcon-h1",
    ),
    (
        "granite-hybrid-dense",
        {"rope_parameters": _LONGROPE},
        "ask for a longrope scaling that llama.cpp does not know for granitehybrid",
    ),
    ("jamba", {"mamba_expand": 3}, "mamba_expand must be 2"),
    ("llama4", {"floor_scale": 1}, "floor_scale must be 8192"),
    (
        "llama4",
        {"num_hidden_layers": 3, "no_rope_layers": [], "layer_types": None, "moe_layers": []},
        "num_hidden_layers must be at least 4",
    ),
    (
        "nomic-bert",
        {"rope_parameters": None, "rope_scaling": {"type": "linear", "factor": 2.0}},
        "rope_scaling.rope_type must be default",
    ),
    ("nomic-bert", {"rotary_emb_scale_base": 512}, "rotary_emb_scale_base must be None"),
    ("lfm2", {"intermediate_size": 1, "block_ff_dim": 1}, "makes the feed-forward 0 wide"),
    ("eurobert", {"rope_parameters": ABSENT}, "rope_theta is missing"),
]


@pytest.mark.parametrize(("name", "changes", "reason"), REFUSED)
def test_what_llama_cpp_would_compute_otherwise_is_refused(
    name: str, changes: dict[str, Any], reason: str, read: Read
) -> None:
    with pytest.raises(CheckpointError, match=reason):
        read(name, **changes)


@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("deepseek-v2", "rms_norm_eps"),
        ("deepseek-v3", "rms_norm_eps"),
        ("glm4-moe-lite", "rms_norm_eps"),
        ("qwen3-next", "rms_norm_eps"),
        ("qwen35", "rms_norm_eps"),
        ("qwen35-moe", "rms_norm_eps"),
        ("falcon-mamba", "layer_norm_epsilon"),
        ("falcon-mamba", "mixer_rms_eps"),
    ],
)
def test_an_epsilon_for_some_norms_is_told_and_refused_where_it_matters(
    name: str, option: str, read: Read
) -> None:
    inside, outside = ("1e-05", "1e-06") if option == "mixer_rms_eps" else ("1e-06", "1e-05")
    others = {"layer_norm_epsilon": 1e-6, "mixer_rms_eps": 1e-6} if name == "falcon-mamba" else {}
    warning = f"the norms inside have the epsilon {inside}, and llama.cpp takes {outside}"
    assert any(warning in told for told in read(name, **{**others, option: 1e-5}).warnings)
    assert not any("epsilon" in told for told in read(name, **{**others, option: 1e-6}).warnings)
    with pytest.raises(CheckpointError, match=rf"{option} must be at most 1e-05.*not 0\.05"):
        read(name, **{**others, option: 0.05})


@pytest.mark.parametrize("name", ["qwen2-vl", "qwen25-vl"])
def test_an_epsilon_that_llama_cpp_does_not_read_must_be_small(name: str, read: Read) -> None:
    assert read(name, text=True, rms_norm_eps=1e-5)
    with pytest.raises(CheckpointError, match=r"text_config\.rms_norm_eps must be at most 1e-05"):
        read(name, text=True, rms_norm_eps=1e-4)


@pytest.mark.parametrize("name", ["ernie4-5", "glm", "glm4", "starcoder2"])
def test_heads_of_keys_are_two_where_nothing_is_said(name: str, read: Read) -> None:
    said, silent = read(name, num_key_value_heads=2), read(name, num_key_value_heads=ABSENT)
    assert dict(said.metadata.items()) == dict(silent.metadata.items())


def test_falcon_mamba_ties_its_embeddings_where_nothing_is_said(read: Read) -> None:
    model = read("falcon-mamba", tie_word_embeddings=ABSENT)
    assert "output.weight" not in {tensor.name for tensor in model.tensors}


@pytest.mark.parametrize("name", ["gemma4", "gemma4-moe-multimodal"])
@pytest.mark.parametrize("nothing", [None, ABSENT])
def test_no_cap_is_written_as_none_where_llama_cpp_has_one_by_default(
    name: str, nothing: object, read: Read
) -> None:
    model = read(name, text="multimodal" in name, final_logit_softcapping=nothing)
    cap = model.metadata.get("gemma4.final_logit_softcapping")
    assert cap is not None
    assert cap.data == 0.0


@pytest.mark.parametrize(
    ("name", "theta", "more"),
    [
        ("apertus", 12e6, {}),
        (
            "ministral3",
            1e6,
            {"mistral3.rope.scaling.factor": 16.0, "mistral3.attention.temperature_scale": 0.1},
        ),
        ("minimax-m2", 5e6, {}),
    ],
)
@pytest.mark.parametrize("nothing", [None, ABSENT])
def test_a_rope_of_which_nothing_is_said_is_the_one_of_transformers(
    name: str, theta: float, more: dict[str, float], nothing: object, read: Read
) -> None:
    model = read(name, rope_parameters=nothing)
    found = {key: value.data for key, value in model.metadata.items()}
    assert found[f"{model.architecture}.rope.freq_base"] == theta
    assert {key: found[key] for key in more} == pytest.approx(more)
    names = {tensor.name for tensor in model.tensors}
    assert ("rope_freqs.weight" in names) == (name == "apertus")


def test_a_null_is_false(read: Read) -> None:
    model = read("deepseek-v3", norm_topk_prob=None)
    normalized = model.metadata.get("deepseek2.expert_weights_norm")
    assert normalized is not None
    assert normalized.data is False
    with pytest.raises(CheckpointError, match="rope_interleave must be true"):
        read("deepseek-v3", rope_interleave=None)


@pytest.mark.parametrize("nothing", [None, ABSENT])
def test_windows_are_told_also_where_layers_are_only_counted(nothing: object, read: Read) -> None:
    def warnings(first: int) -> tuple[str, ...]:
        changes = {"layer_types": nothing, "sliding_window": 8, "max_window_layers": first}
        return read("dots1", **changes).warnings

    assert any("last 8 tokens only" in warning for warning in warnings(1))
    assert warnings(2) == ()

"""Decoders one by one: old and new spellings of a configuration, and what llama.cpp cannot do."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mofa_gguf.convert.checkpoint import open_checkpoint
from mofa_gguf.convert.config import Config
from mofa_gguf.convert.errors import BadTensor, CheckpointError
from mofa_gguf.convert.families import family_of
from mofa_gguf.convert.families.base import Model
from mofa_gguf.convert.families.windows import sliding_layers, write_window
from mofa_gguf.convert.metadata import Metadata
from mofa_gguf.convert.provenance import model_name
from mofa_gguf.convert.weights import computed, plus, transposed
from tests.convert.makers import PARITY, Tensors, safetensors_bytes

Changes = Mapping[str, Any]
Read = Callable[..., Model]

ABSENT = object()
"""Takes a value out of config.json."""


def changed(config: Mapping[str, Any], changes: Changes) -> dict[str, Any]:
    values = {**config, **changes}
    return {name: value for name, value in values.items() if value is not ABSENT}


def tensors_of(name: str) -> Tensors:
    """A fixture's tensors, in memory."""
    with open_checkpoint(PARITY / name) as checkpoint:
        return {source: np.array(checkpoint.array(source)) for source in checkpoint.tensors}


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Read a fixture with other values in its config.json, or with other tensors."""

    def read_changed(
        name: str,
        changes: Changes | None = None,
        *,
        text: Changes | None = None,
        tensors: Tensors | None = None,
    ) -> Model:
        folder = tmp_path / "checkpoint"
        folder.mkdir(exist_ok=True)
        config = json.loads((PARITY / name / "config.json").read_text())
        if text is not None:
            config["text_config"] = changed(config["text_config"], text)
        (folder / "config.json").write_text(json.dumps(changed(config, changes or {})))
        data = (
            (PARITY / name / "model.safetensors").read_bytes()
            if tensors is None
            else safetensors_bytes(tensors)
        )
        (folder / "model.safetensors").write_bytes(data)
        with open_checkpoint(folder) as checkpoint:
            return family_of(checkpoint).read()

    return read_changed


def values_of(model: Model, name: str) -> npt.NDArray[Any]:
    weights = {tensor.name: tensor.weights for tensor in model.tensors}[name]
    return weights.read(0, weights.n_rows)


def datum(model: Model, key: str) -> object:
    value = model.metadata.get(f"{model.architecture}.{key}")
    return None if value is None else value.data


def without_rope(theta: float = 10000.0, **settings: Any) -> dict[str, Any]:
    """The rope's settings as transformers 4 writes them."""
    scaling = {"rope_scaling": settings} if settings else {}
    return {"rope_parameters": ABSENT, "rope_theta": theta, **scaling}


_LONG = {"long_factor": [1.0, 1.5, 2.5, 4.0], "short_factor": [1.0, 1.05, 1.1, 1.3]}
_OLD_GEMMA3 = {
    "rope_parameters": ABSENT,
    "rope_theta": 50000.0,
    "rope_local_base_freq": 3000.0,
    "rope_scaling": {"rope_type": "linear", "factor": 4.0},
    "layer_types": ABSENT,
    "sliding_window_pattern": 2,
}
# What the same models' configurations looked like before transformers 5.
OLD_FORMS: dict[str, tuple[str, Changes]] = {
    "qwen3": ("qwen3", without_rope()),
    "gemma, activation in a legacy name": (
        "gemma",
        {**without_rope(), "hidden_act": "gelu", "hidden_activation": None},
    ),
    "gemma, tied by default": ("gemma", {**without_rope(), "tie_word_embeddings": ABSENT}),
    "gemma2, layers by default": (
        "gemma2",
        {**without_rope(), "layer_types": ABSENT, "tie_word_embeddings": ABSENT},
    ),
    "gemma3": ("gemma3", _OLD_GEMMA3),
    "phi3, su": (
        "phi3",
        without_rope(**_LONG, type="su"),
    ),
    "phi3, yarn in name only": ("phi3", without_rope(**_LONG, type="yarn")),
    "phi3, partly rotated": (
        "phi3-long",
        {
            **without_rope(
                type="longrope", long_factor=[1.0, 1.5, 4.0], short_factor=[1.0, 1.1, 1.3]
            ),
            "partial_rotary_factor": 0.75,
        },
    ),
    "phi, partly rotated by default": ("phi", without_rope()),
    "smollm3, positions by default": (
        "smollm3",
        {
            **without_rope(2e6),
            "no_rope_layers": ABSENT,
            "layer_types": ABSENT,
            "tie_word_embeddings": ABSENT,
        },
    ),
    "olmo": ("olmo", without_rope()),
    "olmo2": ("olmo2", without_rope()),
    "olmo3": (
        "olmo3",
        {
            **without_rope(type="yarn", factor=4.0, original_max_position_embeddings=32),
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        },
    ),
    "granite": ("granite", without_rope()),
    "cohere, tied by default": ("cohere", {**without_rope(5e5), "tie_word_embeddings": ABSENT}),
    "cohere2": (
        "cohere2",
        {**without_rope(), "layer_types": ABSENT, "sliding_window_pattern": 2},
    ),
    "glm4, partly rotated by default": ("glm4", without_rope()),
    "stablelm, partly rotated by default": ("stablelm", without_rope()),
    "stablelm, of the first version": (
        "stablelm-parallel",
        {**without_rope(), "rope_pct": 0.5, "layer_norm_eps": ABSENT, "norm_eps": 1e-5},
    ),
    "starcoder2": ("starcoder2", without_rope()),
    "gpt2, inner width by default": ("gpt2", {"n_ctx": 64, "tie_word_embeddings": ABSENT}),
    "gpt-neox": (
        "gpt-neox",
        {"rope_parameters": ABSENT, "rotary_emb_base": 10000, "rotary_pct": 0.5},
    ),
    "falcon, of the first version": (
        "falcon",
        {
            **without_rope(),
            "num_hidden_layers": ABSENT,
            "n_layer": 2,
            "num_attention_heads": ABSENT,
            "n_head": 4,
        },
    ),
    "bloom": ("bloom", {"hidden_size": ABSENT, "n_embed": 32}),
}


@pytest.mark.parametrize("case", OLD_FORMS)
def test_old_and_new_configurations_give_the_same_file(case: str, read: Read) -> None:
    name, changes = OLD_FORMS[case]
    new, old = read(name), read(name, changes)
    assert dict(old.metadata.items()) == dict(new.metadata.items())
    assert [tensor.name for tensor in old.tensors] == [tensor.name for tensor in new.tensors]
    assert old.warnings == new.warnings


def test_the_text_part_of_an_old_multimodal_configuration(read: Read) -> None:
    new, old = read("gemma3-multimodal"), read("gemma3-multimodal", text=_OLD_GEMMA3)
    assert dict(old.metadata.items()) == dict(new.metadata.items())


def test_a_multimodal_configuration_may_leave_nearly_everything_to_its_defaults(
    read: Read,
) -> None:
    with pytest.raises(BadTensor, match=r"config.json makes it \[262208, 32\]"):
        read("gemma3-multimodal", text={"vocab_size": ABSENT})


@pytest.mark.parametrize(
    ("prefix", "other"),
    [("model.language_model.", "model."), ("language_model.model.", "")],
)
def test_the_text_part_is_found_under_old_and_new_names(
    prefix: str, other: str, read: Read
) -> None:
    renamed = {
        prefix + name.removeprefix("language_model.model.")
        if name.startswith("language_model.")
        else other + name: array
        for name, array in tensors_of("gemma3-multimodal").items()
    }
    model = read("gemma3-multimodal", tensors=renamed)
    assert model.architecture == "gemma3"
    assert set(model.skipped.values()) == {"only the text part is converted"}
    expected = [tensor.name for tensor in read("gemma3").tensors]
    assert [tensor.name for tensor in model.tensors] == expected
    assert any("images" in warning for warning in model.warnings)


def test_the_whole_model_says_whether_its_text_part_s_embeddings_are_tied(read: Read) -> None:
    tied = {"tie_word_embeddings": True}
    assert read("mistral3-multimodal", tied, text={"tie_word_embeddings": False}).tensors
    with pytest.raises(CheckpointError, match=r"text_config\.tie_word_embeddings is not true"):
        read("mistral3-multimodal", {"tie_word_embeddings": False}, text=tied)
    with pytest.raises(CheckpointError, match="is not true"):
        read("mistral3-multimodal", {"tie_word_embeddings": ABSENT}, text={})


# A fixture, what its configuration says instead, and what the refusal speaks of.
REFUSED: list[tuple[str, Changes, str]] = [
    ("qwen3", {"attention_bias": True}, "attention_bias must be false"),
    ("qwen3", {"hidden_act": "gelu"}, "hidden_act must be silu"),
    ("qwen3", {"rope_parameters": {"rope_type": "longrope", **_LONG}}, "long_factor"),
    (
        "qwen3",
        {
            "rope_parameters": {
                "rope_type": "longrope",
                "long_factor": [1] * 8,
                "short_factor": [1] * 8,
            }
        },
        "llama.cpp does not know for qwen3",
    ),
    ("gemma", {"tie_word_embeddings": False}, "the checkpoint has no lm_head"),
    ("gemma", {"hidden_activation": "relu"}, "hidden_activation must be gelu_pytorch_tanh"),
    ("gemma", {"use_bidirectional_attention": True}, "use_bidirectional_attention"),
    ("gemma2", {"query_pre_attn_scalar": 24}, "query_pre_attn_scalar must be 16"),
    ("gemma2", {"layer_types": ["full_attention"]}, "layer_types must be a list of 3"),
    ("gemma2", {"layer_types": ["chunked_attention"] * 3}, "layer_types must be a list of 3"),
    ("gemma2", {"attn_logit_softcapping": 0}, "attn_logit_softcapping must not be 0"),
    ("gemma3", {"attn_logit_softcapping": 5.0}, "attn_logit_softcapping must be null"),
    ("gemma3-multimodal", {"text_config": ABSENT}, "text_config is missing"),
    (
        "mistral3-multimodal",
        {"text_config": {"model_type": "mistral4"}},
        r"text_config\.model_type must be 'mistral'",
    ),
    ("phi3", {"rope_parameters": {"rope_type": "longrope"}}, "long_factor must be a list of 4"),
    ("phi3", {"head_dim": 16}, "head_dim times the number of heads"),
    ("phi", {"qk_layernorm": True}, "qk_layernorm must be false"),
    ("phi", {"partial_rotary_factor": 0.4, "rope_parameters": ABSENT}, "an even part of 8"),
    ("phi", {"partial_rotary_factor": 1.5, "rope_parameters": ABSENT}, "at most 1"),
    ("smollm3", {"no_rope_layers": [1, 1, 1, 1]}, "no_rope_layers must leave out every 4th"),
    ("smollm3", {"no_rope_layers": 3}, "no_rope_layers"),
    ("olmo", {"clip_qkv": -1.0}, "clip_qkv"),
    ("olmo2", {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}}, "be 1"),
    ("olmo3", {"rope_parameters": {"full_attention": {"rope_theta": 5.0}}}, "theta of the others"),
    ("granite", {"residual_multiplier": 0.0}, "residual_multiplier"),
    ("cohere", {"use_qk_norm": True}, "use_qk_norm must be true .* 64 layers or more"),
    ("cohere2", {"sliding_window": None}, "sliding_window must be a whole number"),
    ("starcoder2", {"use_bias": False}, "use_bias must be true"),
    ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx"),
    ("gpt2", {"n_layer": 0}, "n_layer must be a whole number"),
    ("gpt-neox", {"attention_bias": False}, "attention_bias must be true"),
    ("falcon", {"alibi": True}, "alibi must be false"),
    ("falcon", {"parallel_attn": False}, "parallel_attn must be true"),
    ("bloom", {"apply_residual_connection_post_layernorm": True}, "apply_residual_connection"),
]


@pytest.mark.parametrize(("name", "changes", "reason"), REFUSED)
def test_what_llama_cpp_would_compute_otherwise_is_refused(
    name: str, changes: Changes, reason: str, read: Read
) -> None:
    with pytest.raises(CheckpointError, match=reason):
        read(name, changes)


def test_an_output_matrix_that_llama_cpp_would_not_use_is_refused(read: Read) -> None:
    tensors = tensors_of("gemma")
    embeddings = tensors["model.embed_tokens.weight"]
    same = read("gemma", tensors={**tensors, "lm_head.weight": embeddings})
    assert "output.weight" not in {tensor.name for tensor in same.tensors}
    assert "tied" in same.skipped["lm_head.weight"]
    with pytest.raises(CheckpointError, match=r"must be true for llama\.cpp, and lm_head"):
        read("gemma", tensors={**tensors, "lm_head.weight": embeddings[::-1].copy()})


@pytest.mark.parametrize(
    ("name", "head"), [("olmo2", "lm_head.weight"), ("gpt-neox", "embed_out.weight")]
)
def test_tied_embeddings_are_written_twice_where_llama_cpp_asks_for_both(
    name: str, head: str, read: Read
) -> None:
    tensors = tensors_of(name)
    del tensors[head]
    model = read(name, {"tie_word_embeddings": True}, tensors=tensors)
    assert np.array_equal(values_of(model, "output.weight"), values_of(model, "token_embd.weight"))


@pytest.mark.parametrize("name", ["gemma", "gemma2", "gemma3"])
def test_the_norms_of_gemma_hold_what_is_multiplied_by(name: str, read: Read) -> None:
    stored = tensors_of(name)["model.norm.weight"].astype(np.float32)
    assert np.array_equal(values_of(read(name), "output_norm.weight")[0], stored + 1)


def test_no_soft_cap_is_one_that_changes_nothing(read: Read) -> None:
    model = read("gemma2", {"attn_logit_softcapping": None})
    assert datum(model, "attn_logit_softcapping") == 1e6
    assert datum(model, "final_logit_softcapping") == 1.5
    assert datum(read("gemma2", {"attn_logit_softcapping": ABSENT}), "attn_logit_softcapping") == 50


def test_no_window_is_one_as_long_as_the_context(read: Read) -> None:
    model = read("gemma2", {"sliding_window": None})
    assert datum(model, "attention.sliding_window") == 128


def test_the_layers_with_a_window_are_told_where_llama_cpp_would_take_others(read: Read) -> None:
    key = "attention.sliding_window_pattern"
    assert datum(read("gemma2"), key) is None
    types = ["full_attention", "sliding_attention", "sliding_attention"]
    assert datum(read("gemma2", {"layer_types": types}), key) == [False, True, True]
    assert datum(read("gemma3"), key) == [True, False, True]


def test_a_window_s_keys() -> None:
    metadata = Metadata()
    layers = sliding_layers(Config({}, Path("config.json")), 5, period=4)
    assert layers == [True, True, True, False, True]
    write_window(metadata, "x", 7, layers, period=4)
    assert [key for key, _ in metadata.items()] == ["x.attention.sliding_window"]


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("qwen3", {"use_sliding_window": True, "sliding_window": 16}),
        ("smollm3", {"use_sliding_window": True, "sliding_window": 16}),
        ("phi3", {"sliding_window": 16}),
        ("starcoder2", {"sliding_window": 16}),
    ],
)
def test_a_window_that_llama_cpp_ignores_is_told(name: str, changes: Changes, read: Read) -> None:
    assert any("last 16 tokens" in warning for warning in read(name, changes).warnings)
    assert not any("last 16 tokens" in warning for warning in read(name).warnings)


def test_long_rope_keeps_both_lists_of_factors_and_the_attention_s_factor(read: Read) -> None:
    model = read("phi3")
    assert values_of(model, "rope_factors_long.weight").tolist() == [_LONG["long_factor"]]
    short = np.array([_LONG["short_factor"]], dtype=np.float32)
    assert np.array_equal(values_of(model, "rope_factors_short.weight"), short)
    # The context is stretched from 512 to 2048 tokens: sqrt(1 + ln 4 / ln 512).
    assert datum(model, "rope.scaling.attn_factor") == pytest.approx((1 + 2 / 9) ** 0.5)
    assert datum(model, "rope.scaling.original_context_length") == 512
    assert any("more than 512 tokens" in warning for warning in model.warnings)


def test_norms_for_each_head_are_stacked(read: Read) -> None:
    model = read("stablelm-parallel")
    rows = values_of(model, "blk.1.attn_k_norm.weight")
    tensors = tensors_of("stablelm-parallel")
    for head, row in enumerate(rows):
        name = f"model.layers.1.self_attn.k_layernorm.norms.{head}.weight"
        assert np.array_equal(row, tensors[name])
    assert len(rows) == 2
    assert "blk.1.ffn_norm.weight" not in {tensor.name for tensor in model.tensors}


def test_the_largest_command_r_has_norms_for_each_head(read: Read) -> None:
    tensors = tensors_of("cohere")
    for i in range(2, 64):
        for name in [name for name in tensors if ".layers.0." in name]:
            tensors[name.replace(".0.", f".{i}.")] = tensors[name]
    for i in range(64):
        for part, heads in (("q", 4), ("k", 2)):
            name = f"model.layers.{i}.self_attn.{part}_norm.weight"
            tensors[name] = np.full((heads, 8), i, dtype=np.float32)
    model = read("cohere", {"num_hidden_layers": 64, "use_qk_norm": True}, tensors=tensors)
    assert values_of(model, "blk.63.attn_q_norm.weight").tolist() == [[63.0] * 8] * 4
    assert values_of(model, "blk.5.attn_k_norm.weight").shape == (2, 8)


def test_biases_of_zeros_are_left_out_where_llama_cpp_knows_none(read: Read) -> None:
    name = "model.layers.0.self_attn.q_proj.bias"
    zeros = {**tensors_of("cohere2"), name: np.zeros(32, dtype=np.float16)}
    assert read("cohere2", tensors=zeros).skipped == {name: "all zeros"}
    with pytest.raises(BadTensor, match="is not part of"):
        read("cohere2", tensors={**zeros, name: np.ones(32, dtype=np.float16)})


def test_fused_matrices_are_parted_into_queries_keys_and_values(read: Read) -> None:
    fused = tensors_of("falcon-groups")["transformer.h.0.self_attention.query_key_value.weight"]
    rows = values_of(read("falcon-groups"), "blk.0.attn_qkv.weight")
    # Two groups of two heads of queries, a key and a value, with eight rows each.
    first, second = fused.reshape(2, 4, 8, 32)
    expected = [*first[:2], *second[:2], first[2], second[2], first[3], second[3]]
    assert np.array_equal(rows, np.concatenate(expected))


def test_a_transposed_matrix_is_the_same_in_pieces() -> None:
    original = np.arange(12, dtype=np.float32).reshape(3, 4)
    weights = transposed(computed(original))
    assert weights.shape == (4, 3)
    pieces = [weights.read(i, i + 1) for i in range(4)]
    assert np.array_equal(np.concatenate(pieces), original.T)


def test_adding_a_constant_is_done_in_float32() -> None:
    small = np.array([[1e-6, -0.5]], dtype=np.float32)
    assert np.array_equal(plus(computed(small), 1.0).read(0, 1), small + np.float32(1))


def test_a_name_never_makes_llama_cpp_look_for_tokens_that_are_not_there() -> None:
    vocabulary = Metadata()
    vocabulary.strings("tokenizer.ggml.tokens", ["a", "<s>"])
    assert model_name("my-Phi-3-mini", vocabulary) == "my-Phi 3-mini"
    assert model_name("phi3", Metadata()) == "phi 3"
    assert model_name("phi-4", vocabulary) == "phi-4"
    vocabulary.strings("tokenizer.ggml.tokens", ["<unk>", "<s>", "</s>", "<|endoftext|>", "a"])
    assert model_name("Phi-3-mini", vocabulary) == "Phi-3-mini"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)
CONFIGS = {
    path.name: json.loads((path / "config.json").read_text())
    for path in sorted(PARITY.iterdir())
    if path.is_dir()
}


@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_any_configuration_of_any_family_is_read_or_refused_and_nothing_else(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    name = data.draw(st.sampled_from(sorted(CONFIGS)))
    keys = st.sampled_from(sorted(set(CONFIGS[name]) - {"architectures"}))
    changes = data.draw(st.dictionaries(keys, json_values, min_size=1, max_size=3))
    folder = tmp_path_factory.getbasetemp() / f"any-{name}"
    if not folder.exists():
        folder.mkdir()
        for path in (PARITY / name).glob("model*"):
            (folder / path.name).symlink_to(path)
    (folder / "config.json").write_text(json.dumps({**CONFIGS[name], **changes}))
    with contextlib.suppress(CheckpointError), open_checkpoint(folder) as checkpoint:
        assert family_of(checkpoint).read().tensors

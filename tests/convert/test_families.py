"""From config.json and tensor names to llama.cpp's: every tensor used, every value checked."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mofa_gguf.convert import families
from mofa_gguf.convert.checkpoint import open_checkpoint
from mofa_gguf.convert.config import Config
from mofa_gguf.convert.errors import BadTensor, CheckpointError, UnsupportedArchitecture
from mofa_gguf.convert.families import family_of, known, register
from mofa_gguf.convert.families.base import Family, Model
from mofa_gguf.convert.families.rope import read_rope
from mofa_gguf.convert.metadata import Metadata
from tests.convert.makers import CONFIG, PARITY, llama_tensors, write_checkpoint

Read = Callable[..., Model]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Write a checkpoint and read it as its family does."""

    def write_and_read(**arguments: Any) -> Model:
        with open_checkpoint(write_checkpoint(tmp_path / "checkpoint", **arguments)) as checkpoint:
            return family_of(checkpoint).read()

    return write_and_read


def test_every_registered_family_says_what_it_is() -> None:
    assert {"LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "BertModel"} <= set(
        known()
    )
    for family in known().values():
        assert family.architecture
        assert family.rules
        assert family.__doc__


def test_a_name_is_registered_once() -> None:
    class Other(known()["BertModel"]):  # type: ignore[misc]
        """Another family."""

    with pytest.raises(ValueError, match="registered already"):
        register("BertModel")(Other)
    assert known()["BertModel"] is not Other


def test_every_class_is_found_without_the_modules_that_do_not_name_it() -> None:
    program = (
        "import sys; from mofa_gguf.convert import families;"
        "names = [*families.known()];"
        "families._loaded = False\n"
        "for name in names:\n"
        "    families._registered.clear()\n"
        "    for module in families._modules():\n"
        "        sys.modules.pop(f'{families.__name__}.{module}', None)\n"
        "    assert families._ours(name) is not None, name\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_one_checkpoint_imports_its_own_family_and_few_others() -> None:
    program = (
        "import sys; from mofa_gguf.convert import families;"
        "print(families._ours('BertModel').architecture);"
        "print(sum(m.startswith('mofa_gguf.convert.families.') for m in sys.modules))"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    architecture, n_modules = ended.stdout.split()
    assert architecture == b"bert"
    assert int(n_modules) < 15


def test_families_are_found_where_only_compiled_files_are_installed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(families, "__file__", str(tmp_path / "__init__.pyc"))
    assert families._mentions("bert", "BertModel")


def test_an_unknown_architecture_is_answered_with_the_known(read: Read) -> None:
    with pytest.raises(UnsupportedArchitecture, match="LlamaForCausalLM") as caught:
        read(architectures=["UnheardOfForCausalLM"])
    assert caught.value.architecture == "UnheardOfForCausalLM"
    assert "Qwen2ForCausalLM" in caught.value.known


@pytest.mark.parametrize("architectures", [None, [], "LlamaForCausalLM", [3]])
def test_a_config_without_architecture_is_refused(read: Read, architectures: object) -> None:
    with pytest.raises(CheckpointError, match="names no architecture"):
        read(architectures=architectures)


def test_every_tensor_of_every_fixture_is_used_or_skipped_for_a_reason() -> None:
    for folder in sorted(path for path in PARITY.iterdir() if path.is_dir()):
        with open_checkpoint(folder) as checkpoint:
            model = family_of(checkpoint).read()
            used = {name for tensor in model.tensors for name in tensor.weights.sources}
            assert used.isdisjoint(model.skipped)
            assert used | set(model.skipped) == set(checkpoint.tensors), folder.name
            assert all(model.skipped.values())


def test_a_missing_tensor_is_named(read: Read) -> None:
    tensors = llama_tensors(CONFIG)
    del tensors["model.layers.1.mlp.up_proj.weight"]
    with pytest.raises(BadTensor, match="is missing") as caught:
        read(tensors=tensors)
    assert caught.value.tensor == "model.layers.1.mlp.up_proj.weight"


@pytest.mark.parametrize(
    "name",
    [
        "model.layers.2.mlp.up_proj.weight",
        "model.layers.0.self_attn.q_proj.bias",
        "model.vision_tower.weight",
    ],
)
def test_an_unexpected_tensor_is_named(read: Read, name: str) -> None:
    tensors = {**llama_tensors(CONFIG), name: np.zeros(3, dtype=np.float32)}
    with pytest.raises(BadTensor, match="is not part of a LlamaForCausalLM") as caught:
        read(tensors=tensors)
    assert caught.value.tensor == name


def test_a_shape_that_config_json_does_not_make_is_refused(read: Read) -> None:
    with pytest.raises(BadTensor, match=r"has the shape \[96, 64\], but config.json makes it"):
        read(tensors=llama_tensors(CONFIG), intermediate_size=128)


def test_tensors_that_llama_cpp_computes_itself_are_skipped(read: Read) -> None:
    name = "model.layers.0.self_attn.rotary_emb.inv_freq"
    model = read(tensors={**llama_tensors(CONFIG), name: np.zeros(8, dtype=np.float32)})
    assert "computes" in model.skipped[name]


def test_queries_and_keys_are_reordered_in_pairs(read: Read) -> None:
    tensors = llama_tensors(CONFIG)
    model = read(tensors=tensors)
    found = {tensor.name: tensor.weights for tensor in model.tensors}
    for name, source in (("attn_q", "q_proj"), ("attn_k", "k_proj")):
        original = tensors[f"model.layers.0.self_attn.{source}.weight"]
        rows = found[f"blk.0.{name}.weight"].read(0, len(original))
        # Within a head of 16 rows, row j is followed by row j + 8.
        assert rows[16].tolist() == original[16].tolist()
        assert rows[17].tolist() == original[24].tolist()
        assert rows[18].tolist() == original[17].tolist()
        pieces = [found[f"blk.0.{name}.weight"].read(i, i + 5) for i in range(0, 30, 5)]
        assert np.concatenate(pieces).tolist() == rows[:30].tolist()


def test_tied_embeddings_need_no_head(read: Read) -> None:
    model = read(tie_word_embeddings=True)
    assert "output.weight" not in {tensor.name for tensor in model.tensors}


def test_a_head_that_repeats_the_embeddings_is_left_out_where_they_are_tied(read: Read) -> None:
    tensors = llama_tensors(CONFIG)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    model = read(tensors=tensors, tie_word_embeddings=True)
    assert "tied" in model.skipped["lm_head.weight"]
    assert "output.weight" not in {tensor.name for tensor in model.tensors}


def test_a_head_that_differs_is_kept_with_a_warning(read: Read) -> None:
    model = read(tensors=llama_tensors(CONFIG), tie_word_embeddings=True)
    assert "output.weight" in {tensor.name for tensor in model.tensors}
    assert any("differs" in warning for warning in model.warnings)


def test_an_untied_model_without_a_head_is_refused(read: Read) -> None:
    tensors = llama_tensors(CONFIG)
    del tensors["lm_head.weight"]
    with pytest.raises(CheckpointError, match="tie_word_embeddings"):
        read(tensors=tensors)


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("num_hidden_layers", 0, "from 1 to 512"),
        ("num_hidden_layers", 10**9, "from 1 to 512"),
        ("num_hidden_layers", "2", "whole number"),
        ("num_attention_heads", 0, "whole number"),
        ("num_attention_heads", 7, "multiple"),
        ("num_key_value_heads", 3, "multiple"),
        ("num_key_value_heads", 8, "from 1 to 4"),
        ("head_dim", 15, "even"),
        ("hidden_size", 2**40, "whole number"),
        ("hidden_size", None, "hidden_size"),
        ("vocab_size", -1, "whole number"),
        ("vocab_size", True, "whole number"),
        ("rms_norm_eps", "tiny", "must not be"),
        ("rms_norm_eps", float("nan"), "must not be"),
        ("rms_norm_eps", 10**400, "must not be"),
        ("rope_theta", -(10**400), "must not be"),
        ("rope_theta", float("inf"), "must not be"),
        ("hidden_act", "relu", "silu"),
        ("partial_rotary_factor", 0.5, "must be 1"),
        ("max_position_embeddings", 0, "whole number"),
    ],
)
def test_absurd_hyperparameters_never_reach_llama_cpp(
    read: Read, name: str, value: object, reason: str
) -> None:
    with pytest.raises(CheckpointError, match=reason):
        read(tensors=llama_tensors(CONFIG), **{name: value})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)
NAMES = [*CONFIG, "head_dim", "rope_scaling", "rope_parameters", "sliding_window", "attention_bias"]


@settings(max_examples=300, deadline=None)
@given(changes=st.dictionaries(st.sampled_from(NAMES), json_values, min_size=1, max_size=3))
def test_any_config_is_read_or_refused_and_nothing_else(
    changes: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp() / "any-config"
    if not folder.exists():
        write_checkpoint(folder)
    (folder / "config.json").write_text(json.dumps({**CONFIG, **changes}))
    with open_checkpoint(folder) as checkpoint, contextlib.suppress(CheckpointError):
        model = family_of(checkpoint).read()
        assert model.traits.n_layers == 2


def test_a_sliding_window_that_llama_cpp_ignores_is_told(read: Read) -> None:
    model = read(architectures=["MistralForCausalLM"], sliding_window=64)
    assert any("last 64 tokens" in warning for warning in model.warnings)
    assert read(architectures=["MistralForCausalLM"], sliding_window=None).warnings == ()


OLD_AND_NEW_ROPE: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": ({"rope_theta": 5e5}, {"rope_type": "default", "rope_theta": 5e5}),
    "linear": (
        {"rope_theta": 1e4, "rope_scaling": {"type": "linear", "factor": 4.0}},
        {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0},
    ),
    "yarn": (
        {
            "rope_theta": 1e6,
            "rope_scaling": {
                "type": "yarn",
                "factor": 4.0,
                "original_max_position_embeddings": 32768,
            },
        },
        {
            "rope_type": "yarn",
            "rope_theta": 1e6,
            "factor": 4.0,
            "original_max_position_embeddings": 32768,
        },
    ),
}


@pytest.mark.parametrize("kind", OLD_AND_NEW_ROPE)
def test_old_and_new_rope_settings_give_the_same_keys(kind: str) -> None:
    old, new = OLD_AND_NEW_ROPE[kind]
    written = []
    for values in (old, {"rope_parameters": new}):
        metadata = Metadata()
        assert read_rope(Config(values, Path("config.json")), 131072).write(metadata, "llama") == []
        written.append(dict(metadata.items()))
    assert written[0] == written[1]
    assert written[0]["llama.rope.freq_base"].data == new["rope_theta"]
    if kind != "plain":
        assert written[0]["llama.rope.scaling.type"].data == kind
        assert written[0]["llama.rope.scaling.factor"].data == 4.0


def test_llama3_frequencies_are_slowed_down_by_wavelength(read: Read) -> None:
    scaling = {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    model = read(rope_scaling=scaling, rope_theta=500000.0)
    factors = {t.name: t.weights for t in model.tensors}["rope_freqs.weight"].read(0, 1)[0]
    assert len(factors) == 8
    assert factors[0] == 1.0
    assert factors[-1] == 8.0
    assert (np.diff(factors) >= 0).all()


@pytest.mark.parametrize(
    ("scaling", "reason"),
    [
        ({"rope_type": "spiral"}, "known are default"),
        ({"rope_type": "linear"}, "factor"),
        ({"rope_type": "linear", "factor": 0}, "factor"),
        ({"rope_type": "linear", "factor": "x"}, "factor"),
        ({"rope_type": 7}, "rope_type"),
        ({"rope_type": "yarn", "factor": 4.0, "beta_fast": -1}, "beta_fast"),
        ({"rope_type": "llama3", "high_freq_factor": 1.0}, "high_freq_factor"),
        ("linear", "must be an object"),
    ],
)
def test_rope_settings_that_make_no_sense_are_refused(
    read: Read, scaling: object, reason: str
) -> None:
    with pytest.raises(CheckpointError, match=reason):
        read(rope_scaling=scaling)


def test_dynamic_scaling_is_left_out_with_a_warning(read: Read) -> None:
    model = read(rope_scaling={"rope_type": "dynamic", "factor": 2.0})
    assert "llama.rope.scaling.type" not in model.metadata
    assert any("dynamic" in warning for warning in model.warnings)


def test_a_scaling_that_llama_cpp_has_only_for_llama_is_refused_elsewhere(tmp_path: Path) -> None:
    folder = tmp_path / "qwen2"
    folder.mkdir()
    for path in (PARITY / "qwen2").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    config = json.loads((folder / "config.json").read_text())
    config["rope_parameters"] = {"rope_type": "llama3", "rope_theta": 1e4}
    (folder / "config.json").write_text(json.dumps(config))
    with open_checkpoint(folder) as checkpoint, pytest.raises(CheckpointError, match="qwen2"):
        family_of(checkpoint).read()


POOLING = {
    "mean, as it was": ({"pooling_mode_mean_tokens": True}, 1),
    "cls, as it was": ({"pooling_mode_mean_tokens": False, "pooling_mode_cls_token": True}, 2),
    "mean, as it is": ({"pooling_mode": "mean"}, 1),
    "last token": ({"pooling_mode": "lasttoken"}, 3),
}


@pytest.fixture
def bert(tmp_path: Path) -> Callable[..., Family]:
    """The tiny BERT with sentence-transformers' files beside it."""

    def make(modules: object = None, pooling: object = None, **config: object) -> Family:
        folder = tmp_path / "bert"
        folder.mkdir()
        for path in (PARITY / "bert-masked-lm").iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
        values = {**json.loads((folder / "config.json").read_text()), **config}
        (folder / "config.json").write_text(json.dumps(values))
        if modules is not None:
            (folder / "modules.json").write_text(json.dumps(modules))
        if pooling is not None:
            (folder / "1_Pooling").mkdir()
            (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
        return family_of(open_checkpoint(folder))

    return make


MODULES = [
    {"type": "sentence_transformers.models.Transformer", "path": ""},
    {"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"},
]


@pytest.mark.parametrize("case", POOLING)
def test_pooling_is_read_as_sentence_transformers_writes_it(
    bert: Callable[..., Family], case: str
) -> None:
    settings, expected = POOLING[case]
    value = bert(MODULES, settings).read().metadata.get("bert.pooling_type")
    assert value is not None
    assert value.data == expected


def test_without_modules_the_file_names_no_pooling(bert: Callable[..., Family]) -> None:
    assert "bert.pooling_type" not in bert().read().metadata


@pytest.mark.parametrize(
    ("modules", "pooling", "reason"),
    [
        (MODULES, None, "is missing"),
        (MODULES, {"pooling_mode_max_tokens": True}, "must be one of mean"),
        (
            MODULES,
            {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True},
            "by itself",
        ),
        (
            MODULES,
            {"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": True},
            "by itself",
        ),
        ([{"type": "Pooling", "path": "../elsewhere"}], None, "out of the folder"),
        ([*MODULES, {"type": "x.Dense", "path": "2"}], {"pooling_mode": "mean"}, "Dense"),
        ("Pooling", None, "no list"),
    ],
)
def test_modules_that_cannot_be_followed_are_refused(
    bert: Callable[..., Family], modules: object, pooling: object, reason: str
) -> None:
    with pytest.raises(CheckpointError, match=reason):
        bert(modules, pooling).read()


@pytest.mark.parametrize(
    ("name", "value"), [("hidden_act", "relu"), ("position_embedding_type", "relative_key")]
)
def test_a_bert_that_llama_cpp_would_compute_otherwise_is_refused(
    bert: Callable[..., Family], name: str, value: str
) -> None:
    with pytest.raises(CheckpointError, match=name):
        bert(**{name: value}).read()

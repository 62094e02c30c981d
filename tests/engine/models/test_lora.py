"""Adapters beside a model: they count for every request, and none of another model gets through."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from mofa_gguf import ChatCompletionRequest, ConfigError, GGUFConfig, GGUFProvider, LLMError
from mofa_gguf.engine.cache.session import fingerprint
from mofa_gguf.engine.engine import Engine
from mofa_gguf.engine.errors import ModelFileError
from mofa_gguf.engine.files.adapter import check_adapter
from mofa_gguf.engine.files.header import read_header
from mofa_gguf.engine.models.logits import Probe
from mofa_gguf.engine.options import EngineOptions, LoraAdapter
from tests.support.tiny_gguf import write_tiny_llama

# Of the tiny Llama: width 64, 2 key-value heads of 16, a head of 64.
GOOD = {"blk.0.attn_q.weight": (64, 64), "blk.1.attn_v.weight": (64, 32)}
Shapes = Mapping[str, tuple[int, ...]]


def write_adapter(
    path: Path,
    targets: Shapes = GOOD,
    *,
    metadata: Mapping[str, Any] | None = None,
    tensors: Mapping[str, Any] | None = None,
    rank: int = 2,
) -> Path:
    """An adapter with random matrices for targets of (inputs, outputs)."""
    random = np.random.default_rng(1)
    values: dict[str, Any] = {
        "general.architecture": "llama",
        "general.type": "adapter",
        "adapter.type": "lora",
        "adapter.lora.alpha": 4.0,
        **(metadata or {}),
    }
    writer = gguf.GGUFWriter(path, values.pop("general.architecture"))
    for key, value in values.items():
        if isinstance(value, str):
            writer.add_string(key, value)
        elif isinstance(value, float):
            writer.add_float32(key, value)
        elif value is not None:
            writer.add_array(key, value)
    for target, (n_in, n_out) in targets.items():
        for side, shape in (("a", (rank, n_in)), ("b", (n_out, rank))):
            writer.add_tensor(f"{target}.lora_{side}", random.standard_normal(shape, "f4"))
    for name, array in (tensors or {}).items():
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_llama(tmp_path_factory.mktemp("lora") / "tiny.gguf")


def test_an_adapter_changes_what_is_computed(model: Path, tmp_path: Path) -> None:
    adapter = LoraAdapter(str(write_adapter(tmp_path / "a.gguf")))
    with Probe(model, n_threads=1) as probe:
        before = probe.logits([5, 6])
    with Probe(model, n_threads=1, lora=[adapter]) as probe:
        assert np.abs(probe.logits([5, 6]) - before).max() > 0.01
    with Probe(model, n_threads=1) as probe:
        np.testing.assert_array_equal(probe.logits([5, 6]), before)


F4 = np.float32
BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "of another architecture": ({"metadata": {"general.architecture": "qwen2"}}, "for 'qwen2'"),
    "a model": ({"metadata": {"general.type": "model"}}, "no LoRA adapter"),
    "a control vector": ({"metadata": {"adapter.type": "vector"}}, "no LoRA adapter"),
    "without alpha": ({"metadata": {"adapter.lora.alpha": None}}, "alpha"),
    "alpha that is no number": ({"metadata": {"adapter.lora.alpha": float("nan")}}, "alpha"),
    "activated by tokens": (
        {"metadata": {"adapter.alora.invocation_tokens": [1, 2]}},
        "activated LoRA",
    ),
    "of a tensor that is not there": ({"targets": {"blk.9.attn_q.weight": (64, 64)}}, "not have"),
    "too narrow": ({"targets": {"blk.0.attn_q.weight": (32, 64)}}, "right base model"),
    "too low": ({"targets": {"blk.0.attn_q.weight": (64, 65)}}, "right base model"),
    "of embeddings turned round": ({"targets": {"token_embd.weight": (259, 64)}}, "right base"),
    "without its other half": (
        {"tensors": {"blk.0.attn_k.weight.lora_a": np.ones((2, 64), F4)}},
        "pairs",
    ),
    "of two ranks": (
        {
            "targets": {},
            "tensors": {
                "blk.0.attn_q.weight.lora_a": np.ones((2, 64), F4),
                "blk.0.attn_q.weight.lora_b": np.ones((64, 3), F4),
            },
        },
        "right base model",
    ),
    "of too many dimensions": (
        {
            "targets": {},
            "tensors": {
                "blk.0.attn_q.weight.lora_a": np.ones((2, 2, 64), F4),
                "blk.0.attn_q.weight.lora_b": np.ones((2, 64, 2), F4),
            },
        },
        "right base model",
    ),
    "of another type": (
        {
            "targets": {},
            "tensors": {
                "blk.0.attn_q.weight.lora_a": np.ones((2, 64), np.int32),
                "blk.0.attn_q.weight.lora_b": np.ones((64, 2), np.int32),
            },
        },
        "adapters are F32",
    ),
    "a foreign tensor": ({"tensors": {"blk.0.attn_q.bias": np.ones(64, F4)}}, "pairs"),
    "empty": ({"targets": {}}, "pairs"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_an_adapter_that_does_not_fit_is_refused_before_llama_cpp_sees_it(
    kind: str, model: Path, tmp_path: Path
) -> None:
    arguments, says = BROKEN[kind]
    path = write_adapter(tmp_path / "a.gguf", **arguments)
    with pytest.raises(ModelFileError, match=says) as caught:
        Probe(model, n_threads=1, lora=[LoraAdapter(str(path))])
    assert caught.value.path == path


def test_norms_that_some_tools_put_into_adapters_are_passed_over(
    model: Path, tmp_path: Path
) -> None:
    norm = {"blk.0.attn_norm.weight": np.ones(64, F4)}
    path = write_adapter(tmp_path / "a.gguf", tensors=norm)
    check_adapter(read_header(path), read_header(model))


def test_embeddings_may_have_an_adapter_only_beside_an_output_matrix(
    model: Path, tmp_path: Path
) -> None:
    halves = {
        "token_embd.weight.lora_a": np.ones((259, 2), F4),
        "token_embd.weight.lora_b": np.ones((64, 2), F4),
    }
    adapter = read_header(write_adapter(tmp_path / "a.gguf", {}, tensors=halves))
    header = read_header(model)
    check_adapter(adapter, header)
    # llama.cpp would multiply the hidden state by the wrong matrix, and end the process.
    tied = tuple(tensor for tensor in header.tensors if tensor.name != "output.weight")
    with pytest.raises(ModelFileError, match="output matrix too"):
        check_adapter(adapter, replace(header, tensors=tied))


def test_a_file_that_is_not_there_or_no_gguf_is_named(model: Path, tmp_path: Path) -> None:
    (tmp_path / "text.gguf").write_text("no adapter, only text that goes on for a while")
    for name in ("nothing.gguf", "text.gguf"):
        with pytest.raises(ModelFileError, match=name):
            Probe(model, n_threads=1, lora=[LoraAdapter(str(tmp_path / name))])


def test_a_saved_conversation_belongs_to_its_adapters(model: Path, tmp_path: Path) -> None:
    path = str(write_adapter(tmp_path / "a.gguf"))
    other = str(write_adapter(tmp_path / "b.gguf", rank=3))
    header = read_header(model)
    marks = [
        fingerprint(header, EngineOptions(lora=lora), library="x")
        for lora in (
            (),
            (LoraAdapter(path),),
            (LoraAdapter(path, 0.5),),
            (LoraAdapter(other),),
        )
    ]
    assert len({mark["model"] for mark in marks}) == 4


async def test_a_provider_answers_with_its_adapter(model: Path, tmp_path: Path) -> None:
    path = write_adapter(tmp_path / "a.gguf")
    request = ChatCompletionRequest.new().user_message("Hello").with_temperature(0)
    request = request.with_max_tokens(8)
    answers = []
    for lora in ([], [path], [{"path": path, "scale": 0.0}]):
        async with GGUFProvider(GGUFConfig(model=str(model), n_threads=1, lora=lora)) as provider:
            answers.append((await provider.chat(request)).content())
    assert answers[0] == answers[2] != answers[1]


async def test_a_provider_with_a_wrong_adapter_says_so(model: Path, tmp_path: Path) -> None:
    path = write_adapter(tmp_path / "a.gguf", metadata={"general.architecture": "gemma"})
    async with GGUFProvider(GGUFConfig(model=str(model), lora=path)) as provider:
        with pytest.raises(LLMError, match="for 'gemma'"):
            await provider.chat(ChatCompletionRequest.new().user_message("Hello"))


def test_an_engine_closes_with_adapters(model: Path, tmp_path: Path) -> None:
    adapter = LoraAdapter(str(write_adapter(tmp_path / "a.gguf")))
    engine = Engine.load(model, EngineOptions(n_threads=1, n_ctx=64, lora=(adapter,)))
    engine.close()
    engine.close()


def test_the_setting_takes_a_path_a_table_or_several(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = LoraAdapter("a.gguf")
    for value in ("a.gguf", Path("a.gguf"), {"path": "a.gguf"}, ["a.gguf"], [one]):
        assert GGUFConfig(model="m", lora=value).lora == (one,)
    both = GGUFConfig(model="m", lora=["a.gguf", {"path": "b.gguf", "scale": 2}])
    assert both.engine_options().lora == (one, LoraAdapter("b.gguf", 2.0))
    from_file = GGUFConfig.from_options({"model": "m", "lora": {"path": "x/a.gguf"}}, tmp_path)
    assert from_file.lora == (LoraAdapter(str(tmp_path / "x" / "a.gguf")),)
    monkeypatch.setenv("MOFA_GGUF_LORA", "env.gguf")
    assert GGUFConfig(model="m").lora == (LoraAdapter("env.gguf"),)
    monkeypatch.setenv("MOFA_GGUF_LORA", '[{"path": "env.gguf", "scale": 0.5}]')
    assert GGUFConfig(model="m").lora == (LoraAdapter("env.gguf", 0.5),)


@pytest.mark.parametrize(
    "value",
    [
        *(3, "", [""], [3], {"scale": 1}, {"path": "a", "strength": 1}, "[not json", None),
        *({"path": "a", "scale": "x"}, {"path": "a", "scale": float("nan")}, {"path": 7}),
    ],
    ids=repr,
)
def test_a_setting_that_names_no_adapter_is_refused(value: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        GGUFConfig(model="m", lora=value)
    assert caught.value.field == "lora"

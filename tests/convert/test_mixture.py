"""Types and bytes of every tensor are those that llama.cpp's own quantizer writes."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from mofa_gguf.convert.checkpoint import open_checkpoint
from mofa_gguf.convert.families import family_of
from mofa_gguf.convert.families.base import Model, NamedWeights, Traits
from mofa_gguf.convert.metadata import Metadata
from mofa_gguf.convert.mixture import choose_types, fitting, stays_float32
from mofa_gguf.convert.output import PartialFile
from mofa_gguf.convert.plan import make_plan
from mofa_gguf.convert.quantizations import QUANTIZATIONS
from mofa_gguf.convert.weights import computed
from mofa_gguf.convert.writer import write_gguf
from mofa_gguf.engine.header import read_header
from mofa_gguf.engine.native import llama
from mofa_gguf.engine.tensor_types import TYPES_BY_NAME
from tests.convert.makers import PARITY

# llama.cpp's quantizer takes no blocks that are quantized already; test_mxfp4.py holds those.
FIXTURES = sorted(
    path for path in PARITY.iterdir() if path.is_dir() and not path.name.endswith("mxfp4")
)

# Model shapes that llama.cpp's rules tell apart.
SHAPES = {
    "few layers": Traits("llama", 3),
    "many layers, shared keys": Traits("llama", 33, n_gqa=4),
    "70B": Traits("llama", 80, n_gqa=8, is_70b=True),
    "70B of another family": Traits("qwen2", 80, is_70b=True),
    "eight experts": Traits("llama", 17, n_gqa=2, n_experts=8),
    "many experts": Traits("qwen3moe", 17, n_gqa=8, n_experts=16),
    "falcon": Traits("falcon", 18),
    "fused matrices": Traits("phi3", 17, n_gqa=4),
    "70B of OLMo": Traits("olmo", 80, is_70b=True),
    "norms for each head": Traits("command-r", 64, n_gqa=4),
    "bert": Traits("bert", 6),
}


def metadata_of(traits: Traits) -> Metadata:
    """The keys that llama.cpp's quantizer reads."""
    metadata = Metadata()
    name = traits.architecture
    metadata.string("general.architecture", name)
    metadata.uint32(f"{name}.block_count", traits.n_layers)
    metadata.uint32(f"{name}.context_length", 64)
    metadata.uint32(f"{name}.embedding_length", 256)
    metadata.uint32(f"{name}.feed_forward_length", 256)
    metadata.uint32(f"{name}.attention.head_count", 8)
    metadata.uint32(f"{name}.attention.head_count_kv", 8 // traits.n_gqa)
    metadata.float32(f"{name}.attention.layer_norm_rms_epsilon", 1e-6)
    metadata.float32(f"{name}.attention.layer_norm_epsilon", 1e-6)
    if traits.n_experts:
        metadata.uint32(f"{name}.expert_count", traits.n_experts)
        metadata.uint32(f"{name}.expert_used_count", 2)
    return metadata


def tensor_shapes(
    traits: Traits, *, row_length: int, tied: bool
) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names of a whole model with two rows a matrix: the rules look at names and rows only."""
    matrix = (2, row_length)
    yield "token_embd.weight", matrix
    if traits.architecture == "bert":
        yield "position_embd.weight", matrix
        yield "token_types.weight", matrix
    else:
        yield "output_norm.weight", (row_length,)
    if not tied:
        yield "output.weight", matrix
    experts = (traits.n_experts,) if traits.n_experts else ()
    suffix = "_exps" if experts else ""
    fused = traits.architecture in ("falcon", "phi3")
    parts = ("attn_qkv",) if fused else ("attn_q", "attn_k", "attn_v")
    # Layers backwards: the rules must not depend on the order of the file.
    for i in reversed(range(traits.n_layers)):
        yield f"blk.{i}.attn_norm.weight", (row_length,)
        for part in (*parts, "attn_output"):
            yield f"blk.{i}.{part}.weight", matrix
        yield f"blk.{i}.attn_output.bias", (row_length,)
        if traits.architecture == "command-r":
            yield f"blk.{i}.attn_q_norm.weight", (8, 32)
        for part in ("ffn_down", "ffn_gate", "ffn_up"):
            yield f"blk.{i}.{part}{suffix}.weight", (*experts, *matrix)
        if experts:
            yield f"blk.{i}.ffn_gate_inp.weight", matrix


@cache
def model_of(traits: Traits, *, row_length: int = 256, tied: bool = False) -> Model:
    random = np.random.default_rng(0)
    tensors = tuple(
        NamedWeights(name, computed(random.standard_normal(shape).astype(np.float32)))
        for name, shape in tensor_shapes(traits, row_length=row_length, tied=tied)
    )
    return Model(traits.architecture, "test", metadata_of(traits), tensors, 2, traits)


def write(model: Model, quantization: str, path: Path) -> Path:
    plan = make_plan(model, QUANTIZATIONS[quantization])
    with PartialFile(path) as output:
        write_gguf(output, model.metadata, plan, n_threads=2)
        output.commit()
    return path


def llama_quantize(source: Path, target: Path, file_type: int) -> Path:
    """llama.cpp's own quantizer."""
    library = llama()
    params = library.llama_model_quantize_default_params()
    params.ftype = file_type
    params.nthread = 1
    status = library.llama_model_quantize(
        str(source).encode(), str(target).encode(), ctypes.byref(params)
    )
    assert status == 0
    return target


def contents(path: Path) -> dict[str, tuple[str, bytes]]:
    header, data = read_header(path), path.read_bytes()
    starts = {tensor.name: header.data_offset + tensor.offset for tensor in header.tensors}
    return {
        tensor.name: (
            tensor.type.name,
            data[starts[tensor.name] : starts[tensor.name] + tensor.n_bytes],
        )
        for tensor in header.tensors
    }


@pytest.fixture(scope="module")
def assert_equal(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., None]:
    """Quantize a model both ways and compare; each model's F32 file is written once."""
    folder = tmp_path_factory.mktemp("mixtures")
    sources: dict[int, Path] = {}
    models: list[Model] = []

    def compare(model: Model, quantization: str) -> None:
        key = id(model)
        if key not in sources:
            sources[key] = write(model, "F32", folder / f"{key}.gguf")
            models.append(model)  # so that nothing else gets its id
        file_type = QUANTIZATIONS[quantization].file_type
        theirs = contents(llama_quantize(sources[key], folder / "theirs", file_type))
        ours = contents(write(model, quantization, folder / "ours"))
        assert {name: type_name for name, (type_name, _) in ours.items()} == {
            name: type_name for name, (type_name, _) in theirs.items()
        }
        assert [name for name in ours if ours[name] != theirs[name]] == []

    return compare


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
@pytest.mark.parametrize("shape", SHAPES)
def test_types_and_bytes_equal_those_of_llama_cpp(
    shape: str, quantization: str, assert_equal: Callable[..., None]
) -> None:
    assert_equal(model_of(SHAPES[shape]), quantization)


@pytest.mark.parametrize("checkpoint", FIXTURES, ids=lambda path: path.name)
def test_every_family_gets_the_types_of_llama_cpp(
    checkpoint: Path, assert_equal: Callable[..., None]
) -> None:
    with open_checkpoint(checkpoint) as opened:
        assert_equal(family_of(opened).read(), "Q4_K_M")


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_tied_embeddings_get_the_type_of_the_output(
    quantization: str, assert_equal: Callable[..., None]
) -> None:
    assert_equal(model_of(SHAPES["few layers"], tied=True), quantization)


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
@pytest.mark.parametrize("row_length", [64, 48])
def test_rows_that_fit_no_block_fall_back_as_in_llama_cpp(
    row_length: int, quantization: str, assert_equal: Callable[..., None]
) -> None:
    assert_equal(model_of(SHAPES["few layers"], row_length=row_length), quantization)


def test_rows_of_no_block_at_all_become_f16() -> None:
    assert fitting(TYPES_BY_NAME["Q4_K"], 48).name == "F16"
    assert fitting(TYPES_BY_NAME["Q4_K"], 64).name == "Q5_0"
    assert fitting(TYPES_BY_NAME["Q4_K"], 512).name == "Q4_K"


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("output_norm.weight", (64,)),
        ("blk.0.attn_q.bias", (64,)),
        ("blk.0.attn_q_norm.weight", (4, 64)),
        ("token_types.weight", (1, 64)),
        ("position_embd.weight", (512, 64)),
        ("rope_freqs.weight", (32,)),
    ],
)
def test_vectors_norms_and_tables_stay_in_float32(name: str, shape: tuple[int, ...]) -> None:
    assert stays_float32(name, shape)
    for quantization in QUANTIZATIONS.values():
        assert choose_types([(name, shape)], quantization, Traits("llama", 1))[name].name == "F32"

"""Types and bytes of every tensor are those that llama.cpp's own quantizer writes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mofa_gguf.convert.checkpoint import open_checkpoint
from mofa_gguf.convert.choice import choose_types, fitting, is_quantizable
from mofa_gguf.convert.errors import OverrideError, TypeChoiceError
from mofa_gguf.convert.families import family_of
from mofa_gguf.convert.families.base import Model, NamedWeights, Traits
from mofa_gguf.convert.importance import Importance
from mofa_gguf.convert.metadata import Metadata
from mofa_gguf.convert.output import PartialFile
from mofa_gguf.convert.overrides import NO_OVERRIDES, Overrides, read_overrides
from mofa_gguf.convert.parts import Part
from mofa_gguf.convert.plan import lacks_importance, make_plan
from mofa_gguf.convert.quantizations import QUANTIZATIONS
from mofa_gguf.convert.weights import computed
from mofa_gguf.convert.writer import Encoding, write_gguf
from mofa_gguf.engine.files.header import read_header
from mofa_gguf.engine.files.tensor_types import TYPES_BY_NAME
from tests.convert.llama_quantize import llama_quantize
from tests.convert.makers import PARITY

# llama.cpp's quantizer takes no blocks that are quantized already; test_mxfp4.py holds those.
FIXTURES = sorted(
    path for path in PARITY.iterdir() if path.is_dir() and not path.name.endswith("mxfp4")
)

# Files of these are garbage without an importance matrix; llama.cpp refuses to make them.
NEED_IMPORTANCE = [
    *("IQ3_XS", "IQ3_XXS", "Q2_K_S", "IQ2_M", "IQ2_S"),
    *("IQ2_XS", "IQ2_XXS", "IQ1_M", "IQ1_S"),
]
ALONE = [name for name in QUANTIZATIONS if name not in NEED_IMPORTANCE]
# With a matrix these choose other types, or are the usual choice.
CHANGED_BY_IMPORTANCE = ["IQ4_NL", "IQ4_XS", "Q5_0", "Q4_0", "Q4_K_M", "MXFP4_MOE", "Q2_0"]

# Model shapes that llama.cpp's rules tell apart.
SHAPES = {
    "few layers": Traits("llama", 3),
    "many layers, shared keys": Traits("llama", 33, n_gqa=4),
    "70B": Traits("llama", 80, n_gqa=8, is_70b=True),
    "eight experts": Traits("llama", 17, n_gqa=2, n_experts=8),
    "many experts": Traits("qwen3moe", 17, n_gqa=8, n_experts=16),
    "falcon": Traits("falcon", 18),
    "fused matrices": Traits("phi3", 17, n_gqa=4),
    "norms for each head": Traits("command-r", 64, n_gqa=4),
    "bert": Traits("bert", 6),
    "17 layers": Traits("llama", 17, n_gqa=2),
}

# As many layers as the 70B in other families, and the mixtures that ask for that (with one of each
# other kind, which do not).
OTHER_70B = {name: Traits(name, 80, is_70b=True) for name in ("qwen2", "olmo")}
ASKS_FOR_70B = ["Q2_K", "Q3_K_S", "Q3_K_M", "IQ3_M", "Q4_K_S", "Q4_K_M", "Q5_K_M", "IQ4_XS"]

SHAPES_FOR_IMPORTANCE = [
    "70B",
    "eight experts",
    "many experts",
    "falcon",
    "fused matrices",
    "17 layers",
]


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


def write(
    model: Model,
    quantization: str,
    path: Path,
    overrides: Overrides = NO_OVERRIDES,
    importance: Importance | None = None,
) -> Path:
    plan = make_plan(model, QUANTIZATIONS[quantization], overrides, importance)
    with PartialFile(path) as output, Encoding(plan.tensors, n_threads=2) as encoding:
        write_gguf(output, Part(path, model.metadata, plan), encoding)
        output.commit()
    return path


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

    def compare(
        model: Model,
        quantization: str,
        overrides: Overrides = NO_OVERRIDES,
        importance: Importance | None = None,
    ) -> None:
        key = id(model)
        if key not in sources:
            sources[key] = write(model, "F32", folder / f"{key}.gguf")
            models.append(model)  # so that nothing else gets its id
        theirs = contents(
            llama_quantize(
                sources[key],
                folder / "theirs",
                QUANTIZATIONS[quantization].file_type,
                overrides=overrides,
                importance=importance,
            )
        )
        ours = contents(write(model, quantization, folder / "ours", overrides, importance))
        assert {name: type_name for name, (type_name, _) in ours.items()} == {
            name: type_name for name, (type_name, _) in theirs.items()
        }
        assert [name for name in ours if ours[name] != theirs[name]] == []

    return compare


@cache
def importance_for(traits: Traits, *, row_length: int = 256, tied: bool = False) -> Importance:
    """Random weights for every matrix, also for each one of a stack."""
    random = np.random.default_rng(1)
    entries = {}
    for name, shape in tensor_shapes(traits, row_length=row_length, tied=tied):
        if len(shape) > 1:
            n_matrices = shape[0] if len(shape) > 2 else 1
            entries[name] = random.random(n_matrices * row_length, dtype=np.float32)
    return Importance(Path("random.gguf"), entries)


@pytest.mark.parametrize("quantization", ALONE)
@pytest.mark.parametrize("shape", SHAPES)
def test_types_and_bytes_equal_those_of_llama_cpp(
    shape: str, quantization: str, assert_equal: Callable[..., None]
) -> None:
    assert_equal(model_of(SHAPES[shape]), quantization)


@pytest.mark.parametrize("quantization", ASKS_FOR_70B)
@pytest.mark.parametrize("family", OTHER_70B)
def test_the_size_of_the_70b_counts_in_every_family(
    family: str, quantization: str, assert_equal: Callable[..., None]
) -> None:
    assert_equal(model_of(OTHER_70B[family]), quantization)


@pytest.mark.parametrize("quantization", [*NEED_IMPORTANCE, *CHANGED_BY_IMPORTANCE])
@pytest.mark.parametrize("shape", SHAPES_FOR_IMPORTANCE)
def test_types_and_bytes_with_an_importance_matrix_equal_those_of_llama_cpp(
    shape: str, quantization: str, assert_equal: Callable[..., None]
) -> None:
    traits = SHAPES[shape]
    assert_equal(model_of(traits), quantization, importance=importance_for(traits))


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
    traits = SHAPES["few layers"]
    importance = importance_for(traits, tied=True) if quantization in NEED_IMPORTANCE else None
    assert_equal(model_of(traits, tied=True), quantization, importance=importance)


@pytest.mark.parametrize("quantization", [name for name in QUANTIZATIONS if name != "Q1_0"])
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
    assert not is_quantizable(name, shape)
    for quantization in QUANTIZATIONS.values():
        assert choose_types([(name, shape)], quantization, Traits("llama", 1)) == {}


# What llama.cpp's quantize tool takes as --tensor-type, --output-tensor-type and so on.
OVERRIDES = {
    "patterns, the first one counts": {
        "tensor_types": ["blk\\.[02]\\.attn_v=q8_0", "attn_v=q5_1", "FFN_DOWN=bf16"]
    },
    "a pattern for output and embeddings": {"tensor_types": ["output.weight=f16", "_embd=q5_0"]},
    "a pattern for norms, which nothing touches": {"tensor_types": ["norm=q8_0"]},
    "output": {"output_type": "q8_0"},
    "embeddings": {"embedding_type": "F32"},
    "both": {"output_type": "q4_0", "embedding_type": "iq4_nl"},
    "pure": {"pure": True},
    "pure but for patterns": {"pure": True, "tensor_types": ["attn_output=q6_k"]},
    "all": {
        "pure": True,
        "output_type": "q6_k",
        "embedding_type": "q6_k",
        "tensor_types": ["ffn_=mxfp4", "attn_q=nvfp4"],
    },
}


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("name", OVERRIDES)
def test_overrides_choose_what_they_choose_in_llama_cpp(
    name: str, tied: bool, assert_equal: Callable[..., None]
) -> None:
    overrides = read_overrides(**OVERRIDES[name])
    assert_equal(model_of(SHAPES["17 layers"], tied=tied), "Q4_K_M", overrides=overrides)


@pytest.mark.parametrize("quantization", ["F16", "BF16", "F32"])
def test_output_and_embeddings_can_be_chosen_in_files_of_floats(
    quantization: str, assert_equal: Callable[..., None]
) -> None:
    overrides = read_overrides(output_type="Q8_0", embedding_type="Q4_K")
    assert_equal(model_of(SHAPES["few layers"]), quantization, overrides=overrides)


def test_a_pattern_falls_back_where_rows_do_not_fit(assert_equal: Callable[..., None]) -> None:
    overrides = read_overrides(tensor_types=["attn_v=q4_k", "ffn=iq2_s", "attn_k=q8_0"])
    model = model_of(SHAPES["few layers"], row_length=64)
    assert_equal(model, "Q5_0", overrides=overrides)


def test_types_that_nothing_stands_in_for_are_refused_by_tensor() -> None:
    model = model_of(SHAPES["few layers"], row_length=64)
    with pytest.raises(TypeChoiceError, match="no whole blocks of 128") as caught:
        make_plan(model, QUANTIZATIONS["Q1_0"])
    assert (caught.value.tensor, caught.value.type_name) == ("token_embd.weight", "Q1_0")
    overrides = read_overrides(output_type="Q4_K")
    with pytest.raises(TypeChoiceError, match=r"output\.weight.*no whole blocks of 256"):
        make_plan(model, QUANTIZATIONS["Q4_0"], overrides)


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_an_importance_matrix_is_demanded_where_llama_cpp_demands_it(quantization: str) -> None:
    traits = SHAPES["few layers"]
    model, recipe = model_of(traits), QUANTIZATIONS[quantization]
    missing = lacks_importance(make_plan(model, recipe))
    assert (missing is not None) == (quantization in NEED_IMPORTANCE)
    if missing is not None:
        assert "--imatrix" in str(missing)
        assert missing.tensor.startswith("blk.")
    assert lacks_importance(make_plan(model, recipe, importance=importance_for(traits))) is None


def test_one_tensor_without_weights_is_named() -> None:
    traits = SHAPES["few layers"]
    entries = dict(importance_for(traits).entries)
    del entries["blk.1.ffn_up.weight"]
    importance = Importance(Path("some.gguf"), entries)
    plan = make_plan(model_of(traits), QUANTIZATIONS["IQ2_XS"], importance=importance)
    missing = lacks_importance(plan)
    assert missing is not None
    assert (missing.tensor, missing.type_name) == ("blk.1.ffn_up.weight", "IQ2_XS")


def test_output_in_a_type_that_has_no_kernel_without_weights_is_refused() -> None:
    # llama.cpp would end the process.
    overrides = read_overrides(output_type="IQ2_XXS")
    plan = make_plan(model_of(SHAPES["few layers"]), QUANTIZATIONS["Q4_K_M"], overrides)
    missing = lacks_importance(plan)
    assert missing is not None
    assert missing.tensor == "output.weight"


def test_a_pattern_that_fits_nothing_is_told() -> None:
    overrides = read_overrides(tensor_types=["ffn_dwon=Q8_0", "attn_v=Q8_0"])
    plan = make_plan(model_of(SHAPES["few layers"]), QUANTIZATIONS["Q4_K_M"], overrides)
    assert plan.warnings == ("--tensor-type ffn_dwon=Q8_0 fits no tensor's name",)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tensor_types": ["attn_v"]}, "PATTERN=TYPE"),
        ({"tensor_types": ["=Q8_0"]}, "PATTERN=TYPE"),
        ({"tensor_types": ["attn_v="]}, "PATTERN=TYPE"),
        ({"tensor_types": ["(=Q8_0"]}, "no regular expression"),
        ({"tensor_types": ["attn_v=Q9"]}, "no tensor type 'Q9'; there are F32, F16"),
        ({"output_type": "Q4_K_M"}, "--output-type: there is no tensor type 'Q4_K_M'"),
        ({"embedding_type": "I8"}, "--embedding-type: there is no tensor type 'I8'"),
    ],
)
def test_overrides_that_cannot_be_read_are_one_line(options: dict[str, Any], words: str) -> None:
    with pytest.raises(OverrideError, match=re.escape(words)) as caught:
        read_overrides(**options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("options", [{"tensor_types": ["attn_v=Q8_0"]}, {"pure": True}])
def test_files_of_floats_leave_nothing_to_choose_per_tensor(options: dict[str, Any]) -> None:
    with pytest.raises(OverrideError, match="F16 has one type for all tensors"):
        make_plan(model_of(SHAPES["few layers"]), QUANTIZATIONS["F16"], read_overrides(**options))

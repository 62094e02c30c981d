"""quantize(): GGUF in, GGUF out, with the types and bytes of llama.cpp's quantizer."""

from __future__ import annotations

import errno
import shutil
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from mofa_gguf.convert import (
    CheckpointError,
    ConversionError,
    ConversionProgress,
    ConversionReport,
    ImportanceError,
    OutputError,
    OverrideError,
    TypeChoiceError,
    UnknownQuantization,
    VerificationError,
    convert,
    quantize,
)
from mofa_gguf.convert import memory as memory_module
from mofa_gguf.convert import verify as verify_module
from mofa_gguf.convert import writer as writer_module
from mofa_gguf.convert.importance import Importance, read_importance
from mofa_gguf.convert.metadata import Metadata
from mofa_gguf.convert.overrides import NO_OVERRIDES, Overrides, read_overrides
from mofa_gguf.convert.parts import Part
from mofa_gguf.convert.plan import Plan
from mofa_gguf.convert.quantizations import QUANTIZATIONS
from mofa_gguf.engine.errors import OutOfMemory
from mofa_gguf.engine.files.header import read_header
from mofa_gguf.engine.machine.memory import HostMemory, Room
from mofa_gguf.engine.options import EngineOptions
from mofa_gguf.engine.planning.fit import plan_load
from tests.convert.llama_quantize import llama_quantize
from tests.convert.makers import write_checkpoint
from tests.convert.test_importance import write_gguf
from tests.support.tiny_gguf import TinyLlama, write_tiny_llama

NO_TENSORS = Plan(QUANTIZATIONS["F32"], ())
WIDE = TinyLlama(n_layers=2, n_embd=256, n_ff=256, n_heads=8, n_kv_heads=2)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model in F32 whose rows are whole blocks of every type."""
    return write_tiny_llama(tmp_path_factory.mktemp("source") / "tiny.gguf", WIDE)


@pytest.fixture(scope="module")
def imatrix(tmp_path_factory: pytest.TempPathFactory, source: Path) -> Path:
    random = np.random.default_rng(3)
    tensors = {}
    for tensor in read_header(source).tensors:
        if len(tensor.shape) == 2:
            sums = random.random((1, tensor.shape[0]), dtype=np.float32)
            tensors[f"{tensor.name}.in_sum2"] = sums
            tensors[f"{tensor.name}.counts"] = np.array([[3]], dtype=np.float32)
    return write_gguf(tmp_path_factory.mktemp("imatrix") / "tiny-imatrix.gguf", tensors)


def tensors_of(path: Path) -> list[tuple[str, str, bytes]]:
    """Name, type and bytes of every tensor, in the file's order."""
    header, data = read_header(path), path.read_bytes()
    starts = [header.data_offset + tensor.offset for tensor in header.tensors]
    return [
        (tensor.name, tensor.type.name, data[start : start + tensor.n_bytes])
        for tensor, start in zip(header.tensors, starts, strict=True)
    ]


def metadata_of(path: Path) -> dict[str, Any]:
    """Without the keys of this step, and of llama.cpp's command, which its library leaves out."""
    return {
        key: value
        for key, value in read_header(path).metadata.items()
        if not key.startswith(("mofa_gguf.", "quantize.imatrix."))
    }


def left_behind(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def assert_as_llama_cpp(
    source: Path,
    folder: Path,
    quantization: str,
    overrides: Overrides = NO_OVERRIDES,
    importance: Path | None = None,
    **options: Any,
) -> None:
    """Both write the same tensors in the same order, and the same metadata but for our keys."""
    matrix: Importance | None = read_importance(importance) if importance else None
    theirs = llama_quantize(
        source,
        folder / "theirs.gguf",
        QUANTIZATIONS[quantization].file_type,
        overrides=overrides,
        importance=matrix,
        allow_requantize=options.get("allow_requantize", False),
    )
    ours = quantize(
        source,
        folder / "ours.gguf",
        quantization,
        imatrix=importance,
        verify=False,
        force=True,
        threads=1,
        **options,
    ).output
    assert tensors_of(ours) == tensors_of(theirs)
    assert metadata_of(ours) == metadata_of(theirs)


# test_mixture.py holds every quantization; these differ in how the road is taken.
@pytest.mark.parametrize("quantization", ["F32", "BF16", "Q8_0", "Q4_K_M", "IQ2_XS", "MXFP4_MOE"])
def test_a_file_of_floats_becomes_what_llama_cpp_makes_of_it(
    quantization: str, source: Path, imatrix: Path, tmp_path: Path
) -> None:
    assert_as_llama_cpp(source, tmp_path, quantization, importance=imatrix)


@pytest.mark.parametrize("stored", ["F16", "BF16", "Q8_0", "Q4_K_M", "IQ4_XS", "MXFP4_MOE"])
def test_what_is_stored_in_fewer_bits_becomes_what_llama_cpp_makes_of_it(
    stored: str, source: Path, tmp_path: Path
) -> None:
    given = quantize(source, tmp_path / "given.gguf", stored, verify=False, threads=1).output
    assert_as_llama_cpp(given, tmp_path, "Q5_K_M", allow_requantize=True)
    assert_as_llama_cpp(given, tmp_path, "F16", allow_requantize=True)


def test_overrides_are_followed(source: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "tensor_types": ["attn_v=q8_0", "blk\\.1\\.ffn_down=f16"],
        "output_type": "Q5_1",
        "embedding_type": "IQ4_NL",
    }
    assert_as_llama_cpp(source, tmp_path, "Q4_K_M", read_overrides(**options), **options)
    assert_as_llama_cpp(source, tmp_path, "Q4_K_M", read_overrides(pure=True), pure=True)


def test_quantizing_again_must_be_allowed(source: Path, tmp_path: Path) -> None:
    given = quantize(source, tmp_path / "given.gguf", "Q8_0", verify=False).output
    with pytest.raises(TypeChoiceError, match="--allow-requantize") as caught:
        quantize(given, tmp_path / "x.gguf", "Q4_K_M")
    assert (caught.value.tensor, caught.value.type_name) == ("output.weight", "Q6_K")
    # What has its type already is copied: nothing to allow.
    again = quantize(given, tmp_path / "again.gguf", "Q8_0", verify=False).output
    assert sorted(tensors_of(again)) == sorted(tensors_of(given))
    assert left_behind(tmp_path) == ["again.gguf", "given.gguf"]


def test_a_converted_checkpoint_quantized_is_the_checkpoint_quantized(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "tiny", hidden_size=256, intermediate_size=256)
    once = convert(checkpoint, tmp_path / "once.gguf", "Q4_K_M", verify=False).output
    floats = convert(checkpoint, tmp_path / "floats.gguf", "F32", verify=False).output
    twice = quantize(floats, tmp_path / "twice.gguf", "Q4_K_M", verify=False).output
    assert sorted(tensors_of(once)) == sorted(tensors_of(twice))
    one, other = read_header(once).metadata, read_header(twice).metadata
    assert {key for key in one.keys() | other.keys() if one.get(key) != other.get(key)} == {
        "mofa_gguf.source",
        "mofa_gguf.source_sha256",
    }
    assert other["mofa_gguf.source"] == "floats.gguf"


def test_a_checkpoint_is_converted_with_an_importance_matrix(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "tiny", hidden_size=256, intermediate_size=256)
    floats = convert(checkpoint, tmp_path / "floats.gguf", "F32", verify=False).output
    random = np.random.default_rng(4)
    tensors = {}
    for tensor in read_header(floats).tensors:
        if len(tensor.shape) == 2:
            tensors[f"{tensor.name}.in_sum2"] = random.random((1, 256), dtype=np.float32)
            tensors[f"{tensor.name}.counts"] = np.ones((1, 1), dtype=np.float32)
    matrix = write_gguf(tmp_path / "imatrix.gguf", tensors)
    with pytest.raises(TypeChoiceError, match="--imatrix"):
        convert(checkpoint, tmp_path / "x.gguf", "IQ2_S")
    report = convert(checkpoint, tmp_path / "x.gguf", "IQ2_S", imatrix=matrix, threads=1)
    assert "forward pass" in [check.name for check in report.checks]
    theirs = llama_quantize(
        floats, tmp_path / "theirs.gguf", 28, importance=read_importance(matrix)
    )
    assert sorted(tensors_of(report.output)) == sorted(tensors_of(theirs))
    assert read_header(report.output).metadata["quantize.imatrix.file"] == "imatrix.gguf"
    small = write_checkpoint(tmp_path / "small")
    with pytest.raises(ImportanceError, match="needs 64"):
        convert(small, tmp_path / "y.gguf", "Q4_0", imatrix=matrix)


def test_what_does_not_fit_into_memory_is_written_without_being_run(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OutOfMemory("the model takes more memory than there is")

    monkeypatch.setattr(verify_module, "Probe", refuse)
    checkpoint = write_checkpoint(tmp_path / "tiny")
    given = quantize(source, tmp_path / "x.gguf", "Q8_0", threads=1)
    made = convert(checkpoint, tmp_path / "y.gguf", "Q8_0", threads=1)
    assert [check.name for check in given.checks] == ["header"]
    assert [check.name for check in made.checks] == ["header", "vocabulary"]
    for name in ("x.gguf", "y.gguf"):
        assert f"{name}: the check 'forward pass' was left out: the model takes" in caplog.text


def test_the_file_tells_its_recipe(source: Path, imatrix: Path, tmp_path: Path) -> None:
    report = quantize(
        source,
        tmp_path / "x.gguf",
        "iq2_xs",
        imatrix=imatrix,
        tensor_types=["attn_v=Q8_0"],
        output_type="q6_k",
        verify=False,
    )
    metadata = read_header(report.output).metadata
    assert metadata["mofa_gguf.quantization"] == "IQ2_XS"
    assert metadata["mofa_gguf.overrides"] == "--tensor-type attn_v=Q8_0 --output-type Q6_K"
    assert metadata["mofa_gguf.source"] == "tiny.gguf"
    assert len(metadata["mofa_gguf.source_sha256"]) == len(metadata["mofa_gguf.imatrix_sha256"])
    assert metadata["quantize.imatrix.file"] == "tiny-imatrix.gguf"
    assert metadata["quantize.imatrix.chunks_count"] == 7


def test_the_result_is_checked_and_reported(source: Path, tmp_path: Path) -> None:
    seen: list[ConversionProgress] = []
    report = quantize(source, tmp_path / "x.gguf", "Q4_K_M", threads=1, progress=seen.append)
    assert [check.name for check in report.checks] == ["header", "forward pass"]
    assert report.n_bytes_out == report.output.stat().st_size
    assert (report.architecture, report.family, report.n_files) == ("llama", "GGUF", 1)
    assert report.n_parameters == read_header(source).n_parameters
    assert list(report.seconds) == ["reading", "writing", "verifying"]
    assert seen[-1].n_tensors == len(report.tensors)
    planned = quantize(source, tmp_path / "y.gguf", "Q4_K_M", dry_run=True)
    assert planned.tensors == report.tensors
    assert planned.n_bytes_out == report.n_bytes_out
    assert left_behind(tmp_path) == ["x.gguf"]


def test_two_runs_give_the_same_bytes_with_any_number_of_threads(
    source: Path, imatrix: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(name: str, threads: int) -> bytes:
        target = tmp_path / name
        options: dict[str, Any] = {"imatrix": imatrix, "threads": threads, "verify": False}
        return quantize(source, target, "IQ3_XXS", **options).output.read_bytes()

    one = run("1.gguf", 1)
    monkeypatch.setattr(writer_module, "SLAB_ELEMENTS", 300)
    assert run("2.gguf", 5) == one


def test_stacked_experts_have_weights_of_their_own_whatever_the_slabs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.convert.test_mixture import SHAPES, importance_for, model_of, write

    traits = SHAPES["eight experts"]
    model, importance = model_of(traits), importance_for(traits)
    whole = write(model, "IQ4_NL", tmp_path / "1.gguf", importance=importance)
    monkeypatch.setattr(writer_module, "SLAB_ELEMENTS", 3 * 256)
    slabs = write(model, "IQ4_NL", tmp_path / "2.gguf", importance=importance)
    assert whole.read_bytes() == slabs.read_bytes()


def test_a_matrix_is_demanded_and_a_dry_run_says_so(source: Path, tmp_path: Path) -> None:
    with pytest.raises(TypeChoiceError, match="--imatrix"):
        quantize(source, tmp_path / "x.gguf", "IQ2_XXS")
    planned = quantize(source, tmp_path / "x.gguf", "IQ2_XXS", dry_run=True)
    assert "--imatrix" in planned.warnings[-1]
    assert planned.bits_per_weight < 4
    assert left_behind(tmp_path) == []


def planned_memory(path: Path, n_ctx: int) -> tuple[int, int, int, int]:
    """What the engine plans for a file on the CPU, with room for all of it."""
    memory = HostMemory(Room(2**50, "pretended"))
    options = EngineOptions(n_ctx=n_ctx)
    plan = plan_load(read_header(path), options, devices=(), memory=memory).plan
    return plan.n_ctx, plan.host.weights, plan.host.cache, plan.n_bytes


def told_memory(report: ConversionReport) -> tuple[int, int, int, int]:
    memory = report.memory
    assert memory is not None
    return memory.n_ctx, memory.weights, memory.kv_cache, memory.n_bytes


def test_the_memory_to_run_it_is_what_the_engine_plans(source: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    for n_ctx in (256, 1000):
        dry = quantize(source, path, "Q8_0", dry_run=True, n_ctx=n_ctx)
        written = quantize(source, path, "Q8_0", force=True, threads=1, verify=False)
        assert told_memory(dry) == planned_memory(path, n_ctx)
        assert written.memory is None
    trained = quantize(source, path, "F16", dry_run=True)
    assert told_memory(trained)[0] == WIDE.n_ctx
    parts = quantize(source, path, "F16", dry_run=True, split_max_size="1M")
    assert parts.n_files > 1
    assert told_memory(parts) == told_memory(trained)


def test_a_dry_run_does_without_the_memory_where_it_cannot_be_told(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_arguments: object, **_keywords: object) -> None:
        raise OSError(errno.EFBIG, "File too large")

    monkeypatch.setattr(Path, "open", refuse)
    assert memory_module.memory_to_run(Part(tmp_path / "x.gguf", Metadata(), NO_TENSORS)) is None


def test_a_set_of_parts_is_written_and_read_as_one(source: Path, tmp_path: Path) -> None:
    report = quantize(source, tmp_path / "x.gguf", "COPY", split_max_size="1M")
    names = left_behind(tmp_path)
    n = len(names)
    assert n == report.n_files > 2
    assert names == [f"x-{i:05d}-of-{n:05d}.gguf" for i in range(1, n + 1)]
    assert report.output == tmp_path / names[0]
    sizes = [(tmp_path / name).stat().st_size for name in names]
    assert max(sizes) <= 10**6
    assert sum(sizes) == report.n_bytes_out
    headers = [read_header(tmp_path / name) for name in names]
    for i, header in enumerate(headers):
        assert header.metadata["split.no"] == i
        assert header.metadata["split.count"] == n
        assert header.metadata["split.tensors.count"] == len(read_header(source).tensors)
    assert len(headers[0].metadata) > len(headers[1].metadata) == 3
    joined = quantize(report.output, tmp_path / "joined.gguf", "COPY").output
    assert sorted(tensors_of(joined)) == sorted(tensors_of(source))
    given = metadata_of(source)
    assert metadata_of(joined) == {**given, "general.quantization_version": 2}
    assert_as_llama_cpp(report.output, tmp_path, "Q4_K_M")


def test_a_checkpoint_becomes_parts(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "tiny", hidden_size=256, intermediate_size=512)
    target = tmp_path / "out" / "x.gguf"
    target.parent.mkdir()
    report = convert(checkpoint, target, "F16", split_max_size="1M", threads=1)
    assert [check.name for check in report.checks] == ["header", "vocabulary", "forward pass"]
    assert len(left_behind(target.parent)) == report.n_files > 1
    whole = convert(checkpoint, tmp_path / "whole.gguf", "F16", verify=False)
    joined = quantize(report.output, tmp_path / "joined.gguf", "COPY", verify=False)
    assert sorted(tensors_of(joined.output)) == sorted(tensors_of(whole.output))


def test_one_part_is_an_ordinary_file(source: Path, tmp_path: Path) -> None:
    report = quantize(source, tmp_path / "x.gguf", "Q8_0", split_max_size="1G", verify=False)
    assert left_behind(tmp_path) == ["x.gguf"]
    assert "split.count" not in read_header(report.output).metadata


@pytest.mark.parametrize("stage", ["writing", "verifying"])
@pytest.mark.parametrize("split", [None, "1M"])
def test_an_interrupt_leaves_nothing_behind(
    source: Path, tmp_path: Path, stage: str, split: str | None
) -> None:
    def interrupt(progress: ConversionProgress) -> None:
        if progress.stage == stage and (stage == "verifying" or progress.n_tensors_done > 8):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        quantize(source, tmp_path / "x.gguf", "F16", progress=interrupt, split_max_size=split)
    assert left_behind(tmp_path) == []


@pytest.mark.parametrize("failing", [0, 1])
def test_a_set_that_cannot_be_put_in_place_leaves_the_old_one(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    old = quantize(source, tmp_path / "x.gguf", "F16", split_max_size="1M", verify=False)
    before = {name: (tmp_path / name).read_bytes() for name in left_behind(tmp_path)}
    assert len(before) == old.n_files
    other = write_tiny_llama(tmp_path / "other", TinyLlama(**{**vars(WIDE), "seed": 5}))
    really = Path.replace
    victim = sorted(before)[failing]

    def refuse(path: Path, target: Path) -> Path:
        if path.name == Path(target).name == victim and path.parent.name.endswith(".part"):
            raise OSError(13, "Permission denied")
        return really(path, target)

    monkeypatch.setattr(Path, "replace", refuse)
    options: dict[str, Any] = {"split_max_size": "1M", "force": True, "verify": False}
    with pytest.raises(OutputError, match="permission"):
        quantize(other, tmp_path / "x.gguf", "F16", **options)
    other.unlink()
    assert {name: (tmp_path / name).read_bytes() for name in left_behind(tmp_path)} == before
    monkeypatch.undo()
    with pytest.raises(OutputError, match="exists already"):
        quantize(source, tmp_path / "x.gguf", "F16", split_max_size="1M", verify=False)


def test_a_full_disk_is_noticed_before_writing(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9, 1000))
    for split in (None, "1M"):
        with pytest.raises(OutputError, match="are free"):
            quantize(source, tmp_path / "x.gguf", "F16", split_max_size=split)
    assert left_behind(tmp_path) == []


def test_the_source_is_never_replaced(source: Path, tmp_path: Path) -> None:
    own = shutil.copy(source, tmp_path / "own.gguf")
    with pytest.raises(OutputError, match="is the source itself"):
        quantize(own, own, "Q8_0", force=True)
    assert own.read_bytes() == source.read_bytes()


def write_other_model(folder: Path) -> Path:
    """Sound GGUF, but no model that llama.cpp can run."""
    writer = gguf.GGUFWriter(folder / "other.gguf", "nobody")
    writer.add_tensor("weird.weight", np.ones((32, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return folder / "other.gguf"


def test_a_file_that_does_not_load_is_kept_only_when_told_so(tmp_path: Path) -> None:
    other = write_other_model(tmp_path)
    with pytest.raises(VerificationError, match="--no-verify"):
        quantize(other, tmp_path / "x.gguf", "Q8_0")
    assert left_behind(tmp_path) == ["other.gguf"]
    assert quantize(other, tmp_path / "x.gguf", "Q8_0", verify=False).output.exists()


def parts(folder: Path, source: Path) -> list[Path]:
    quantize(source, folder / "set.gguf", "COPY", split_max_size="1M", verify=False)
    return sorted(folder.glob("set-*.gguf"))


BAD_SETS: dict[str, tuple[Callable[[list[Path]], Path], str]] = {
    "not the first": (lambda p: p[1], "not the first"),
    "renamed": (lambda p: p[0].rename(p[0].with_name("renamed.gguf")), "not the first"),
    "one missing": (lambda p: (p[1].unlink(), p[0])[1], "is missing: part 2"),
    "one twice": (lambda p: (shutil.copy(p[1], p[2]), p[0])[1], "not part 3"),
}


@pytest.mark.parametrize("name", BAD_SETS)
def test_a_set_that_is_not_whole_is_one_line(name: str, source: Path, tmp_path: Path) -> None:
    damage, words = BAD_SETS[name]
    first = damage(parts(tmp_path, source))
    with pytest.raises(CheckpointError, match=words):
        quantize(first, tmp_path / "x.gguf", "Q8_0")
    assert not (tmp_path / "x.gguf").exists()


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        (UnknownQuantization, {"quantization": "Q9"}, "Q4_K_M"),
        (OverrideError, {"split_max_size": "5T"}, "5T.* is no size"),
        (OverrideError, {"split_max_size": "0M"}, "is no size"),
        (OverrideError, {"quantization": "COPY", "pure": True}, "keeps every tensor"),
        (OverrideError, {"quantization": "F16", "pure": True}, "one type for all"),
        (ImportanceError, {"imatrix": "nowhere.dat"}, "nowhere.dat"),
    ],
)
def test_wrong_options_are_one_line(
    kind: type[ConversionError], options: dict[str, Any], words: str, source: Path, tmp_path: Path
) -> None:
    with pytest.raises(kind, match=words) as caught:
        quantize(source, tmp_path / "x.gguf", **options)
    assert "\n" not in str(caught.value)
    assert left_behind(tmp_path) == []


@pytest.mark.parametrize("content", [None, b"", b"GGUF", b"no model" * 10])
def test_what_is_no_gguf_is_one_line(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "given.gguf"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        quantize(path, tmp_path / "x.gguf")
    assert caught.value.path == path


def test_damaged_weights_are_named(source: Path, tmp_path: Path) -> None:
    given = quantize(source, tmp_path / "given.gguf", "Q8_0", verify=False).output
    header, data = read_header(given), bytearray(given.read_bytes())
    tensor = next(t for t in header.tensors if t.name == "blk.1.ffn_up.weight")
    at = header.data_offset + tensor.offset
    data[at : at + 2] = b"\x00\x7c"  # the first block's scale becomes infinite
    given.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"blk\.1\.ffn_up\.weight.* NaN or infinity"):
        quantize(given, tmp_path / "x.gguf", "Q4_0", allow_requantize=True, verify=False)
    assert left_behind(tmp_path) == ["given.gguf"]

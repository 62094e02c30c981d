"""convert(): the whole road, what it leaves behind, and what wrong input gets."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mofa_gguf.convert import (
    BadTensor,
    CheckpointError,
    ConversionError,
    ConversionProgress,
    OutputError,
    PickleRefused,
    TokenizerError,
    UnknownQuantization,
    UnsupportedArchitecture,
    VerificationError,
    convert,
)
from mofa_gguf.convert import output as output_module
from mofa_gguf.convert import verify as verify_module
from mofa_gguf.convert import writer as writer_module
from mofa_gguf.engine.errors import ModelFileError
from mofa_gguf.engine.files.header import read_header
from tests.convert.makers import (
    CONFIG,
    llama_tensors,
    raw_safetensors,
    to_bfloat16,
    write_checkpoint,
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("source") / "tiny")


def left_behind(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_report_tells_what_was_done(checkpoint: Path, tmp_path: Path) -> None:
    report = convert(checkpoint, tmp_path / "tiny.gguf", "q8_0", threads=2)
    header = read_header(report.output)
    assert report.quantization == "Q8_0"
    assert (report.architecture, report.family) == ("llama", "LlamaForCausalLM")
    assert report.n_bytes_out == report.output.stat().st_size
    assert report.n_parameters == header.n_parameters
    assert report.bits_per_weight == pytest.approx(8 * header.n_tensor_bytes / header.n_parameters)
    assert [tensor.name for tensor in report.tensors] == [tensor.name for tensor in header.tensors]
    assert [check.name for check in report.checks] == ["header", "vocabulary", "forward pass"]
    assert all(check.passed for check in report.checks)
    assert set(report.seconds) == {"reading", "tokenizer", "writing", "verifying"}
    first = report.tensors[0]
    assert (first.source_name, first.source_type, first.target_type) == (
        "model.embed_tokens.weight",
        "F32",
        "Q8_0",
    )
    assert json.loads(json.dumps(report.to_dict()))["output"] == str(report.output)


def test_the_file_says_where_it_comes_from(checkpoint: Path, tmp_path: Path) -> None:
    report = convert(checkpoint, tmp_path / "tiny.gguf", "Q4_0", verify=False)
    metadata = read_header(report.output).metadata
    assert metadata["general.name"] == "tiny"
    assert metadata["general.architecture"] == "llama"
    assert metadata["general.file_type"] == 2
    assert metadata["mofa_gguf.quantization"] == "Q4_0"
    assert len(metadata["mofa_gguf.source_sha256"]) == 64


def test_without_an_output_the_file_is_named_after_folder_and_quantization(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert convert(checkpoint, verify=False).output == Path("tiny-Q4_K_M.gguf")
    assert left_behind(tmp_path) == ["tiny-Q4_K_M.gguf"]


@pytest.mark.parametrize("quantization", ["F16", "Q4_K_M"])
def test_two_runs_give_the_same_bytes_with_any_number_of_threads(
    checkpoint: Path, tmp_path: Path, quantization: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = convert(checkpoint, tmp_path / "1.gguf", quantization, threads=1, verify=False)
    monkeypatch.setattr(writer_module, "SLAB_ELEMENTS", 300)
    many = convert(checkpoint, tmp_path / "2.gguf", quantization, threads=7, verify=False)
    assert one.output.read_bytes() == many.output.read_bytes()


def test_every_stored_float_type_gives_the_same_model(tmp_path: Path) -> None:
    halves = {
        name: array.astype(np.float16).astype(np.float32)
        for name, array in llama_tensors(CONFIG).items()
    }
    brains = {
        name: (to_bfloat16(array).astype(np.uint32) << 16).view(np.float32)
        for name, array in halves.items()
    }
    stored: dict[str, Callable[[Any], Any]] = {
        "F64": lambda array: array.astype(np.float64),
        "F32": lambda array: array,
        "BF16": to_bfloat16,
    }
    contents = set()
    for name, change in stored.items():
        tensors = {key: change(array) for key, array in brains.items()}
        folder = write_checkpoint(tmp_path / name / "model", tensors=tensors)
        report = convert(folder, tmp_path / f"{name}.gguf", "Q8_0", verify=False)
        data_offset = read_header(report.output).data_offset
        contents.add(report.output.read_bytes()[data_offset:])
    assert len(contents) == 1


def test_a_dry_run_plans_and_writes_nothing(checkpoint: Path, tmp_path: Path) -> None:
    planned = convert(checkpoint, tmp_path / "x.gguf", "Q4_K_M", dry_run=True)
    assert planned.dry_run
    assert left_behind(tmp_path) == []
    done = convert(checkpoint, tmp_path / "x.gguf", "Q4_K_M")
    assert planned.tensors == done.tensors
    assert planned.n_bytes_out == done.n_bytes_out == done.output.stat().st_size


def test_progress_counts_up_to_the_whole(checkpoint: Path, tmp_path: Path) -> None:
    seen: list[ConversionProgress] = []
    report = convert(checkpoint, tmp_path / "x.gguf", "Q8_0", progress=seen.append)
    assert list(dict.fromkeys(step.stage for step in seen)) == list(report.seconds)
    writing = [step for step in seen if step.stage == "writing"]
    assert [step.n_bytes_done for step in writing] == sorted(step.n_bytes_done for step in writing)
    assert writing[-1].n_bytes_done == writing[-1].n_bytes
    assert writing[-1].n_tensors_done == writing[-1].n_tensors == len(report.tensors)


def test_an_existing_file_is_replaced_only_with_force(checkpoint: Path, tmp_path: Path) -> None:
    target = tmp_path / "x.gguf"
    target.write_text("precious")
    with pytest.raises(OutputError, match="exists already"):
        convert(checkpoint, target, "F16")
    assert target.read_text() == "precious"
    convert(checkpoint, target, "F16", force=True, verify=False)
    assert target.read_bytes().startswith(b"GGUF")


def test_a_failed_replacement_leaves_the_old_file(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "x.gguf"
    target.write_text("precious")

    def refuse(*_: object, **__: object) -> None:
        raise ModelFileError(target, "llama.cpp cannot load it")

    monkeypatch.setattr(verify_module, "Probe", refuse)
    with pytest.raises(VerificationError, match=r"x\.gguf: forward pass: .*cannot load") as caught:
        convert(checkpoint, target, "F16", force=True)
    assert caught.value.check == "forward pass"
    assert left_behind(tmp_path) == ["x.gguf"]
    assert target.read_text() == "precious"


def test_an_unknown_quantization_is_answered_with_the_known(checkpoint: Path) -> None:
    with pytest.raises(UnknownQuantization, match="Q4_K_M"):
        convert(checkpoint, quantization="Q4_K_XXL")


def test_fewer_than_one_thread_is_refused(checkpoint: Path) -> None:
    with pytest.raises(ValueError, match="threads"):
        convert(checkpoint, threads=0)


def broken(name: str, folder: Path) -> Path:
    """A checkpoint folder with one thing wrong."""
    if name == "no folder":
        return folder / "nowhere"
    write_checkpoint(folder)
    weights = folder / "model.safetensors"
    if name == "a file":
        return weights
    if name == "no config":
        (folder / "config.json").unlink()
    elif name == "no weights":
        weights.unlink()
    elif name == "pickles only":
        weights.rename(folder / "pytorch_model.bin")
    elif name == "unknown architecture":
        write_checkpoint(folder, architectures=["NobodyForCausalLM"])
    elif name == "truncated weights":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif name == "lying header":
        weights.write_bytes(raw_safetensors(b"\x7b" * 3, b""))
    elif name == "no tokenizer":
        for path in folder.glob("tokenizer*"):
            path.unlink()
    elif name == "cyclic config":
        (folder / "config.json").unlink()
        (folder / "config.json").symlink_to(folder / "config.json")
    return folder


BROKEN: dict[str, tuple[type[ConversionError], str]] = {
    "no folder": (CheckpointError, "no such folder"),
    "a file": (CheckpointError, "is a file"),
    "no config": (CheckpointError, "config.json"),
    "no weights": (CheckpointError, "no weights"),
    "pickles only": (PickleRefused, "save_pretrained"),
    "unknown architecture": (UnsupportedArchitecture, "LlamaForCausalLM"),
    "truncated weights": (CheckpointError, "truncated"),
    "lying header": (CheckpointError, "header"),
    "no tokenizer": (TokenizerError, "tokenizer"),
    "cyclic config": (CheckpointError, "config.json"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_wrong_sources_get_one_line_and_leave_nothing(name: str, tmp_path: Path) -> None:
    kind, words = BROKEN[name]
    source = broken(name, tmp_path / "source")
    target = tmp_path / "target"
    target.mkdir()
    with pytest.raises(kind, match=words) as caught:
        convert(source, target / "x.gguf", "F16")
    assert "\n" not in str(caught.value)
    assert left_behind(target) == []


@pytest.mark.parametrize(
    ("value", "quantization", "words"),
    [
        (float("nan"), "F32", "NaN or infinity"),
        (float("inf"), "F16", "NaN or infinity"),
        (float("-inf"), "Q8_0", "NaN or infinity"),
        (1e6, "F16", "too large for F16; use BF16 or F32"),
        (1e9, "Q8_0", "too large for Q8_0"),
    ],
)
def test_weights_that_would_break_the_model_are_refused(
    value: float, quantization: str, words: str, tmp_path: Path
) -> None:
    tensors = llama_tensors(CONFIG)
    tensors["model.layers.1.mlp.up_proj.weight"][7, 5] = value
    source = write_checkpoint(tmp_path / "source", tensors=tensors)
    with pytest.raises(BadTensor, match=words) as caught:
        convert(source, tmp_path / "x.gguf", quantization, threads=2)
    assert caught.value.tensor == "model.layers.1.mlp.up_proj.weight"
    assert left_behind(tmp_path) == ["source"]


@pytest.mark.parametrize("kind", ["F16", "BF16"])
def test_infinity_is_found_in_weights_that_are_only_copied(kind: str, tmp_path: Path) -> None:
    tensors = llama_tensors(CONFIG)
    tensors["model.norm.weight"][3] = float("inf")
    with np.errstate(over="ignore"):
        stored = {
            name: array.astype(np.float16) if kind == "F16" else to_bfloat16(array)
            for name, array in tensors.items()
        }
    source = write_checkpoint(tmp_path / "source", tensors=stored)
    with pytest.raises(BadTensor, match=r"model\.norm\.weight"):
        convert(source, tmp_path / "x.gguf", kind)


def test_a_disk_without_room_is_noticed_before_writing(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9, 1000))
    with pytest.raises(OutputError, match="are free") as caught:
        convert(checkpoint, tmp_path / "x.gguf", "F16")
    assert caught.value.path == tmp_path / "x.gguf"
    assert left_behind(tmp_path) == []


class FullDisk:
    """A file that takes a few bytes and then no more."""

    def __init__(self, file: Any, error: int) -> None:
        self._file, self._error, self._room = file, error, 100_000

    def write(self, data: bytes) -> int:
        self._room -= len(data)
        if self._room < 0:
            raise OSError(self._error, os.strerror(self._error))
        return int(self._file.write(data))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


@pytest.mark.parametrize(
    ("code", "words"),
    [(errno.ENOSPC, "the disk is full"), (errno.EDQUOT, "quota"), (errno.EIO, "rror")],
)
def test_a_disk_that_fills_up_while_writing_leaves_no_partial_file(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, words: str
) -> None:
    begin = output_module.PartialFile.begin

    def fill_up(self: output_module.PartialFile) -> None:
        begin(self)
        self.file = FullDisk(self.file, code)  # type: ignore[assignment]

    monkeypatch.setattr(output_module.PartialFile, "begin", fill_up)
    with pytest.raises(OutputError, match=words):
        convert(checkpoint, tmp_path / "x.gguf", "F32")
    assert left_behind(tmp_path) == []


@pytest.mark.parametrize(
    ("code", "words"), [(errno.EROFS, "read-only"), (errno.EACCES, "permission")]
)
def test_a_folder_that_takes_no_file_is_named(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, words: str
) -> None:
    really_open = Path.open

    def refuse(path: Path, mode: str = "r", *arguments: Any, **keywords: Any) -> Any:
        # Running as root, tests cannot make a folder that refuses.
        if "x" in mode:
            raise OSError(code, os.strerror(code))
        return really_open(path, mode, *arguments, **keywords)

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(OutputError, match=words):
        convert(checkpoint, tmp_path / "x.gguf", "F16")
    assert left_behind(tmp_path) == []


@pytest.mark.parametrize(
    ("target", "words"), [("nowhere/x.gguf", "does not exist"), ("", "is a folder")]
)
def test_a_target_that_cannot_be_is_refused_at_once(
    checkpoint: Path, tmp_path: Path, target: str, words: str
) -> None:
    with pytest.raises(OutputError, match=words):
        convert(checkpoint, tmp_path / target, "F16")


@pytest.mark.parametrize("stage", ["writing", "verifying"])
def test_an_interrupt_leaves_nothing_behind(checkpoint: Path, tmp_path: Path, stage: str) -> None:
    def interrupt(progress: ConversionProgress) -> None:
        if progress.stage == stage:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(checkpoint, tmp_path / "x.gguf", "Q8_0", progress=interrupt)
    assert left_behind(tmp_path) == []


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = (
        "import sys, mofa_gguf.convert; "
        "print([m for m in ('numpy', 'llama_cpp', 'gguf', 'tokenizers') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


def test_a_conversion_loads_no_reader_of_another_kind_of_tokenizer_and_no_other_task() -> None:
    others = ("requantize", "importance", "comparison", "deep", "adapter", "memory", "plugins")
    kinds = ("bpe", "legacy", "sentencepiece_model", "spm", "tekken", "unigram", "pretokenizer")
    code = (
        "import sys, mofa_gguf.convert.orders; "
        f"names = [*{others!r}, *('tokenizer.' + kind for kind in {kinds!r})]; "
        "print([name for name in names if f'mofa_gguf.convert.{name}' in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


# Tells what other threads than the main one look for.
ON_OTHER_THREADS = """
import sys, threading

class Watch:
    def find_spec(self, name, path=None, target=None):
        if threading.current_thread() is not threading.main_thread():
            print(threading.current_thread().name, name)
        return None

sys.meta_path.insert(0, Watch())
"""


@pytest.mark.parametrize("quantization", ["Q8_0", "F16", "Q4_K_M"])
def test_modules_are_imported_on_the_callers_thread_alone(
    checkpoint: Path, tmp_path: Path, quantization: str
) -> None:
    """Where Ctrl-C ends an import half-way, imports of other threads may wait for ever."""
    code = (
        f"{ON_OTHER_THREADS}from mofa_gguf.convert import convert, quantize\n"
        f"convert({str(checkpoint)!r}, 'x.gguf', {quantization!r})\n"
        "quantize('x.gguf', 'y.gguf', 'Q5_0', allow_requantize=True)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    assert result.stdout == ""

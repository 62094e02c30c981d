"""``quantize``, and the options about types that ``convert`` shares with it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mofa_gguf.engine.files.header import read_header
from tests.cli.conftest import Run
from tests.cli.tiny_checkpoint import write_tiny_checkpoint
from tests.support.tiny_gguf import TinyLlama, write_tiny_llama


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_tiny_llama(tmp_path / "tiny.gguf", TinyLlama(n_embd=256, n_ff=256))


def types_of(path: Path) -> dict[str, str]:
    return {tensor.name: tensor.type.name for tensor in read_header(path).tensors}


def test_a_file_becomes_a_smaller_file_and_a_report(run: Run, model: Path) -> None:
    result = run("quantize", model, "-q", "q4_k_m", "--threads", "1")
    assert result.code == 0, result.err
    written = Path("tiny-Q4_K_M.gguf")
    assert written.stat().st_size < model.stat().st_size / 4
    shown = " ".join(result.out.split())
    for fact in ("output tiny-Q4_K_M.gguf", "llama (GGUF)", "check: forward pass passed"):
        assert fact in shown
    assert "writing" in result.err


def test_types_can_be_chosen_tensor_by_tensor(run: Run, model: Path) -> None:
    options = ["--tensor-type", "attn_v=q8_0", "--tensor-type", r"blk\.0\.ffn=F16"]
    options += ["--output-type", "q5_0", "--embedding-type", "q4_0", "--pure"]
    result = run("quantize", model, "-q", "Q6_K", *options, "--no-verify", "--json")
    assert result.code == 0, result.err
    report = json.loads(result.out)
    types = types_of(Path(report["output"]))
    assert types == {each["name"]: each["target_type"] for each in report["tensors"]}
    assert types["blk.1.attn_v.weight"] == "Q8_0"
    assert types["blk.0.ffn_up.weight"] == "F16"
    assert types["blk.1.ffn_up.weight"] == "Q6_K"
    assert (types["output.weight"], types["token_embd.weight"]) == ("Q5_0", "Q4_0")


def test_a_checkpoint_takes_the_same_options(run: Run, tmp_path: Path) -> None:
    checkpoint = write_tiny_checkpoint(tmp_path / "tiny")
    options = ["--tensor-type", "attn_v=f16", "--output-type", "F32", "--threads", "1"]
    result = run("convert", checkpoint, "-q", "Q8_0", *options, "--no-verify")
    assert result.code == 0, result.err
    types = types_of(Path("tiny-Q8_0.gguf"))
    assert types["blk.1.attn_v.weight"] == "F16"
    # This checkpoint has no output matrix of its own: the embeddings are the output.
    assert types["token_embd.weight"] == "F32"


def test_a_dry_run_tells_the_memory_that_running_it_takes(run: Run, model: Path) -> None:
    before = sorted(Path.cwd().iterdir())
    result = run("quantize", model, "--dry-run", "--n-ctx", "4096")
    assert result.code == 0, result.err
    shown = " ".join(result.out.split())
    assert "blk.1.ffn_down.weight" in shown
    assert "(not written: dry run)" in shown
    assert "with 4096 tokens of context: weights " in shown
    planned = json.loads(run("quantize", model, "--dry-run", "--n-ctx", "4096", "--json").out)
    # Two layers, keys and values of 128 numbers of 16 bits.
    assert planned["memory"]["kv_cache"] == 4096 * 2 * 2 * 128 * 2
    assert sorted(Path.cwd().iterdir()) == before


def test_a_file_is_divided_and_joined(run: Run, model: Path) -> None:
    divided = run("quantize", model, "-q", "copy", "-o", "x.gguf", "--split-max-size", "1M")
    assert divided.code == 0, divided.err
    names = sorted(path.name for path in Path.cwd().glob("x-*.gguf"))
    assert f"{names[0]} and {len(names) - 1} more" in " ".join(divided.out.split())
    joined = run("quantize", names[0], "-q", "COPY", "--no-verify")
    assert joined.code == 0, joined.err
    assert types_of(Path("x-COPY.gguf")) == types_of(model)


def test_wrong_requests_are_one_line_each(run: Run, model: Path, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no model")
    cases = [
        ([tmp_path / "nowhere.gguf"], "there is no such file"),
        ([tmp_path / "text"], "is no GGUF file"),
        ([model, "-q", "Q9_9"], "Q4_K_M"),
        ([model, "-q", "IQ2_XXS"], "--imatrix FILE"),
        ([model, "--imatrix", tmp_path / "text"], "is no importance matrix"),
        ([model, "--tensor-type", "attn_v"], "PATTERN=TYPE"),
        ([model, "--output-type", "Q4_K_M"], "there is no tensor type"),
        ([model, "--split-max-size", "many"], "is no size"),
        ([model, "-o", model, "--force"], "is the source itself"),
    ]
    for arguments, says in cases:
        result = run("quantize", *arguments)
        errors = [line for line in result.err.splitlines() if line.startswith("error: ")]
        assert (result.code, result.out) == (1, "")
        assert len(errors) == 1
        assert says in errors[0]
    assert list(Path.cwd().iterdir()) == []


def test_an_importance_matrix_is_computed_and_used(run: Run, model: Path) -> None:
    Path("text.txt").write_text("what the model will read, over and over; " * 20)
    options = ["--chunk-size", "64", "--chunks", "3", "--threads", "1"]
    result = run("imatrix", model, "text.txt", "-o", "imatrix.gguf", *options)
    assert result.code == 0, result.err
    shown = " ".join(result.out.split())
    assert "output imatrix.gguf read 3 chunks of 64 tokens" in shown
    assert "reading the text" in result.err
    again = run("imatrix", model, "text.txt", "-o", "imatrix.gguf", *options, "--force", "--json")
    report = json.loads(again.out)
    assert (report["n_chunks"], report["output"], again.err) == (3, "imatrix.gguf", "")
    small = run("quantize", model, "-q", "Q2_K_S", "--imatrix", "imatrix.gguf", "--threads", "1")
    assert small.code == 0, small.err
    assert "Q2_K" in types_of(Path("tiny-Q2_K_S.gguf")).values()


def test_an_importance_matrix_wants_a_gguf_file_and_a_text(
    run: Run, model: Path, tmp_path: Path
) -> None:
    Path("text.txt").write_text("too short")
    checkpoint = write_tiny_checkpoint(tmp_path / "checkpoint")
    for arguments, says in (
        ([checkpoint, "text.txt"], "is a checkpoint; convert it first (mofa-gguf convert"),
        ([model, "text.txt"], "the text has only"),
        ([model, "none.txt"], "none.txt: cannot be read"),
        ([tmp_path / "none.gguf", "text.txt"], "none.gguf"),
    ):
        result = run("imatrix", *arguments, "-o", "x.gguf", "--chunk-size", "64")
        assert (result.code, result.out) == (1, "")
        assert says in result.err.splitlines()[-1]
    assert not Path("x.gguf").exists()

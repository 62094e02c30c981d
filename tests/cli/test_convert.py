"""``convert``, and models named on the command line: with a real converter and a tiny model."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Run, install_plugin
from tests.cli.tiny_checkpoint import write_tiny_checkpoint
from tests.support.tiny_gguf import write_tiny_llama


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return write_tiny_checkpoint(tmp_path / "tiny")


def test_a_checkpoint_becomes_a_file_and_a_report(run: Run, checkpoint: Path) -> None:
    result = run("convert", checkpoint, "-q", "q8_0")
    assert result.code == 0, result.err
    written = Path("tiny-Q8_0.gguf")
    assert written.read_bytes()[:4] == b"GGUF"
    shown = " ".join(result.out.split())
    for fact in ("output tiny-Q8_0.gguf", "LlamaForCausalLM", "90.6 K", "check:", "passed"):
        assert fact in shown
    assert "writing" in result.err


def test_the_report_comes_as_json_and_nothing_else(run: Run, checkpoint: Path) -> None:
    result = run("convert", checkpoint, "-o", "out.gguf", "-q", "F16", "--json", "--threads", "1")
    report = json.loads(result.out)
    assert result.err == ""
    assert report["output"] == "out.gguf"
    assert report["quantization"] == "F16"
    assert report["n_bytes_out"] == Path("out.gguf").stat().st_size
    assert all(check["passed"] for check in report["checks"])


def test_a_dry_run_lists_every_tensor_and_writes_nothing(run: Run, checkpoint: Path) -> None:
    result = run("convert", checkpoint, "--dry-run")
    assert result.code == 0
    assert "model.layers.1.mlp.down_proj.weight" in result.out
    assert "(not written: dry run)" in result.out
    assert list(Path.cwd().iterdir()) == []


def test_a_dry_run_of_a_model_that_embeds_tells_how_much_it_reads_at_once(run: Run) -> None:
    folder = Path(__file__).resolve().parents[1] / "data" / "parity" / "distilbert"
    result = run("convert", folder, "-q", "F32", "--dry-run", "--n-ctx", "512")
    assert result.code == 0, result.err
    assert "tokens at a time: weights " in " ".join(result.out.split())
    assert "tokens of context" not in result.out


def test_the_architectures_are_listed_without_a_source(run: Run) -> None:
    result = run("convert", "--list")
    assert (result.code, result.err) == (0, "")
    rows = [line.split() for line in result.out.splitlines() if "For" in line]
    listed = {name: (architecture, source) for name, architecture, source in rows}
    assert listed["LlamaForCausalLM"] == listed["MistralForCausalLM"] == ("llama", "mofa-gguf")
    assert listed["PhiForCausalLM"] == ("phi2", "mofa-gguf")
    assert list(listed) == sorted(listed)


def test_a_broken_plugin_is_named_beside_the_list(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = install_plugin(tmp_path / "site", module="broken_families", source="1 / 0")
    monkeypatch.syspath_prepend(str(site))
    result = run("convert", "--list")
    assert result.code == 0
    assert "LlamaForCausalLM" in result.out
    assert "broken-families 1.2: ZeroDivisionError" in result.err


def test_without_verification_there_are_no_checks(run: Run, checkpoint: Path) -> None:
    result = run("convert", checkpoint, "-q", "Q8_0", "--no-verify", "--json")
    assert json.loads(result.out)["checks"] == []


def test_a_deep_verification_compares_with_the_f32_weights(run: Run, checkpoint: Path) -> None:
    Path("text.txt").write_text("Some text to predict, letter by letter.")
    options = ["-q", "Q8_0", "--threads", "1", "--verify", "deep", "--verify-text", "text.txt"]
    report = json.loads(run("convert", checkpoint, "--json", *options).out)
    assert report["comparison"]["n_tokens"] == 38
    assert report["comparison"]["perplexity_ratio"] == pytest.approx(1, abs=0.1)
    shown = " ".join(run("convert", checkpoint, "--force", *options).out.split())
    assert "check: comparison with F32 passed, KL divergence" in shown
    assert sorted(path.name for path in Path.cwd().iterdir()) == ["text.txt", "tiny-Q8_0.gguf"]
    result = run("convert", checkpoint, "--force", *options[:-1], "no.txt")
    assert result.code == 1
    assert "no.txt: cannot be read" in result.err
    assert run("convert", checkpoint, "--verify", "deeper").code == 2


def test_an_adapter_is_converted_for_its_base(run: Run) -> None:
    data = Path(__file__).resolve().parents[1] / "data"
    adapter, base = data / "adapters" / "llama", data / "parity" / "llama"
    result = run("convert", adapter, "--base", base)
    assert result.code == 0, result.err
    assert Path("llama-lora-F32.gguf").read_bytes()[:4] == b"GGUF"
    assert "LoRA of LlamaForCausalLM" in result.out
    report = json.loads(run("convert", adapter, "--base", base, "-q", "F16", "--json").out)
    assert report["quantization"] == "F16"
    wrong = run("convert", adapter, "--base", data / "parity" / "qwen3", "--force")
    assert wrong.code == 1
    assert len(wrong.err.strip().splitlines()) == 1
    without = run("convert", adapter)
    assert "convert it for its base model (--base CHECKPOINT)" in without.err


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--pure"], "--pure; leave it out"),
        (["--imatrix", "x.gguf", "--tensor-type", "a=Q8_0"], "--tensor-type and --imatrix; leave"),
        (["--threads", "1", "--n-ctx", "9"], "--n-ctx and --threads; leave them out"),
        (["--verify", "deep", "--verify-text", "x"], "--verify and --verify-text; leave"),
        (["--split-max-size", "1G"], "--split-max-size; leave it out"),
        (["--allow-tokenizer-mismatch"], "--allow-tokenizer-mismatch; leave it out"),
    ],
)
def test_options_that_mean_nothing_for_an_adapter_are_refused(
    run: Run, options: list[str], named: str
) -> None:
    data = Path(__file__).resolve().parents[1] / "data"
    adapter, base = data / "adapters" / "llama", data / "parity" / "llama"
    result = run("convert", adapter, "--base", base, *options)
    assert (result.code, result.out) == (2, "")
    # typer draws a box around the sentence.
    said = " ".join(result.err.replace("│", " ").split())
    assert f"--base converts a LoRA adapter, for which there is no {named}" in said
    assert list(Path.cwd().iterdir()) == []


def test_verifying_deeply_and_not_at_all_exclude_each_other(run: Run, checkpoint: Path) -> None:
    result = run("convert", checkpoint, "--no-verify", "--verify", "deep")
    assert result.code == 2
    assert "--no-verify leaves nothing to compare" in " ".join(result.err.split())


def test_an_existing_file_is_replaced_only_when_told_to(run: Run, checkpoint: Path) -> None:
    Path("out.gguf").write_text("precious")
    result = run("convert", checkpoint, "-o", "out.gguf")
    assert result.code == 1
    assert "exists already" in result.err
    assert Path("out.gguf").read_text() == "precious"
    assert run("convert", checkpoint, "-o", "out.gguf", "--force").code == 0
    assert Path("out.gguf").read_bytes()[:4] == b"GGUF"


def test_wrong_sources_are_one_line_each(run: Run, checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    pickled = write_tiny_checkpoint(tmp_path / "pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    unknown = write_tiny_checkpoint(tmp_path / "unknown")
    config = json.loads((unknown / "config.json").read_text())
    config["architectures"] = ["NeverHeardOfForCausalLM"]
    (unknown / "config.json").write_text(json.dumps(config))
    cases = [
        (["convert", tmp_path / "empty"], "config.json"),
        (["convert", pickled], "pickle"),
        (["convert", unknown], "NeverHeardOfForCausalLM"),
        (["convert", unknown], "LlamaForCausalLM"),
        (["convert", checkpoint, "-q", "Q9_9"], "Q4_K_M"),
        (["convert", checkpoint, "-o", "no/such/folder/x.gguf"], "no/such/folder"),
        (["convert", checkpoint / "model.safetensors"], "give the checkpoint's folder"),
    ]
    for arguments, says in cases:
        result = run(*arguments)
        errors = [line for line in result.err.splitlines() if line.startswith("error: ")]
        assert result.code == 1
        assert result.out == ""
        assert len(errors) == 1
        assert says in errors[0]
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_one_line(run: Run, checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o555)
    result = run("convert", checkpoint, "-o", tmp_path / "locked" / "x.gguf")
    assert result.code == 1
    assert "locked" in result.err


def test_a_checkpoint_can_be_inspected(run: Run, checkpoint: Path) -> None:
    facts = json.loads(run("inspect", checkpoint, "--json", "--tensors").out)
    assert (facts["kind"], facts["architecture"]) == ("checkpoint", "llama")
    assert facts["n_parameters"] == 90624
    assert len(facts["tensors"]) == 20
    assert "llama (LlamaForCausalLM)" in run("inspect", checkpoint).out


def test_a_checkpoint_answers_after_one_conversion(run: Run, checkpoint: Path) -> None:
    options = ["-m", checkpoint, "-n", "4", "-t", "0", "--json"]
    first = run("ask", "hello", *options)
    assert first.code == 0, first.err
    assert "writing" in first.err
    second = run("ask", "hello", *options)
    assert second.err == ""
    answers = [json.loads(result.out) for result in (first, second)]
    assert answers[0]["choices"] == answers[1]["choices"]
    assert answers[0]["usage"]["completion_tokens"] <= 4


def test_a_prompt_that_does_not_fit_is_one_line_with_both_numbers(
    run: Run, checkpoint: Path
) -> None:
    result = run("ask", "x" * 500, "-m", checkpoint, "--n-ctx", "256")
    assert result.code == 1
    error = result.err.splitlines()[-1]
    assert error.startswith("error: Context length exceeded: ")
    assert re.search(r"\b5\d\d tokens\b.*\b256\b", error)


def test_two_commands_at_once_convert_once(checkpoint: Path, tmp_path: Path) -> None:
    code = "import sys; from mofa_gguf.cli.main import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "embed", "hello", "-m", str(checkpoint)]
    processes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert len({out for out, _ in outputs}) == 1
    assert sum("verifying" in err for _, err in outputs) == 1
    assert len(list((tmp_path / "cache" / "converted").glob("*.gguf"))) == 1


def test_broken_models_and_options_are_one_line_each(run: Run, tmp_path: Path) -> None:
    whole = write_tiny_llama(tmp_path / "whole.gguf")
    (tmp_path / "text.gguf").write_text("this is no model\n" * 100)
    (tmp_path / "cut.gguf").write_bytes(whole.read_bytes()[:200_000])
    (tmp_path / "empty.gguf").write_bytes(b"")
    config = tmp_path / "mofa.toml"
    config.write_text('[providers.a]\nprovider = "gguf"\nmodel = "whole.gguf"\nn_ctxt = 5\n')
    cases = [
        (["-m", tmp_path / "text.gguf"], "is no GGUF file"),
        (["-m", tmp_path / "empty.gguf"], "is no GGUF file"),
        (["-m", tmp_path / "cut.gguf"], "truncated"),
        (["-m", whole, "-t", "9"], "temperature"),
        (["-m", whole, "--n-gpu-layers", "many"], "n_gpu_layers"),
        (["-c", config], "did you mean 'n_ctx'"),
    ]
    for arguments, says in cases:
        result = run("ask", "hello", *arguments)
        assert (result.code, result.out) == (1, "")
        assert result.err.startswith("error: ")
        assert result.err.count("\n") == 1
        assert says in result.err


def test_a_full_disk_is_one_line_and_leaves_nothing(
    run: Run, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 5))
    result = run("convert", checkpoint, "-q", "Q8_0")
    assert (result.code, result.out) == (1, "")
    assert result.err.splitlines()[-1].startswith("error: ")
    assert "free" in result.err.splitlines()[-1]
    assert list(Path.cwd().iterdir()) == []


def test_a_disk_that_fills_up_meanwhile_is_one_line_and_leaves_nothing(checkpoint: Path) -> None:
    # The kernel refuses to let any file of this process grow beyond 200 kB, half of what is needed.
    code = (
        "import resource, sys\n"
        "from mofa_gguf.cli.main import main\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))\n"
        "sys.exit(main())\n"
    )
    command = [sys.executable, "-c", code, "convert", str(checkpoint), "-q", "F32"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
    error = ran.stderr.splitlines()[-1]
    assert (ran.returncode, ran.stdout) == (1, "")
    assert error.startswith("error: tiny-F32.gguf: cannot be written")
    assert list(Path.cwd().iterdir()) == []

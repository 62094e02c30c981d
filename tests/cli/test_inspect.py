"""``inspect``: what a file says of itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.support.tiny_gguf import TinyLlama, write_tiny_llama


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_tiny_llama(tmp_path / "tiny.gguf", TinyLlama(metadata={"general.name": "Tiny"}))


def test_a_files_facts_are_shown(run: Run, model: Path) -> None:
    shown = " ".join(run("inspect", model).out.split())
    for fact in (
        "name Tiny",
        "architecture llama",
        "107.2 K in 21 tensors",
        "32.0 bits a weight",
        "context 256 tokens",
        "2 layers, width 64, 4 heads, 2 for keys and values",
        "tokenizer gpt2 gpt-2, 259 tokens",
        "chat template yes",
    ):
        assert fact in shown


def test_the_facts_come_as_json(run: Run, model: Path) -> None:
    facts = json.loads(run("inspect", model, "--json", "--tensors", "--metadata").out)
    assert facts["n_parameters"] == sum(
        tensor["n_bytes"] // 4 for tensor in facts["tensors"] if tensor["type"] == "F32"
    )
    assert facts["tensor_types"] == {"F32": 4 * facts["n_parameters"]}
    assert facts["metadata"]["llama.context_length"] == 256
    assert facts["metadata"]["tokenizer.ggml.tokens"] == "array of 259"


def test_a_file_is_inspected_without_what_runs_models(model: Path) -> None:
    program = (
        "import sys; from mofa_gguf.cli.main import main; assert main(sys.argv[1:]) == 0;"
        "heavy = {'numpy', 'llama_cpp', 'pydantic', 'jinja2', 'asyncio'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", program, "inspect", model, "--tensors"], check=True)


def test_tensors_and_metadata_can_be_listed(run: Run, model: Path) -> None:
    shown = run("inspect", model, "--tensors", "--metadata").out
    assert "blk.1.ffn_down.weight" in shown
    assert "llama.attention.head_count_kv" in shown


def test_a_folder_with_a_model_is_inspected(run: Run, model: Path) -> None:
    assert json.loads(run("inspect", model.parent, "--json").out)["path"] == str(model)


def test_a_damaged_file_is_one_line(run: Run, model: Path) -> None:
    model.write_bytes(model.read_bytes()[:5000])
    result = run("inspect", model)
    assert result.code == 1
    assert "is truncated or damaged" in result.err
    assert result.err.count("\n") == 1


def test_a_hub_id_that_was_not_pulled_is_not_downloaded(run: Run) -> None:
    result = run("inspect", "org/name")
    assert result.code == 1
    assert "mofa-gguf pull org/name" in result.err

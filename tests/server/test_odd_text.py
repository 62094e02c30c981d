"""Half surrogate pairs: JSON spells them, file names have them, and UTF-8 answers cannot."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from mofa_gguf import GGUFConfig, GGUFProvider
from mofa_gguf.contract import ModelNotFound
from mofa_gguf.server.errors import problem_of
from tests.server.serving import Served, serving

BYTE = os.fsdecode(b"\xff")


def test_an_echoed_half_pair_comes_back_as_a_question_mark(served: Served) -> None:
    body = rb'{"prompt": "a\ud800", "echo": true, "max_tokens": 1}'
    answer = served.post("completions", content=body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["choices"][0]["text"].startswith("a?")


def test_a_model_is_listed_and_answers_whatever_bytes_its_files_name_has(
    tools_model: Path, tmp_path: Path
) -> None:
    path = Path(shutil.copy(tools_model, tmp_path / f"odd{BYTE}.gguf"))
    config = GGUFConfig(model=str(path), n_threads=1, flash_attn="off")
    body = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 1}
    with serving(GGUFProvider(config)) as running:
        listed = [model["id"] for model in running.get("v1/models").json()["data"]]
        assert listed == ["odd?"]
        assert running.post("chat/completions", json=body).json()["model"] == "odd?"
        assert list(running.get("health").json()["models"]) == ["odd?"]


def test_an_error_that_names_a_file_is_told_whatever_bytes_the_name_has() -> None:
    problem = problem_of(ModelNotFound(f"there is no file none{BYTE}.gguf"))
    assert b"none?.gguf" in problem.response().body

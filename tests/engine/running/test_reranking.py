"""Rerankers against the scores that transformers computes from the same checkpoint.

``tests/data/rerankers`` was made by ``tools/make_reranker_fixtures.py``.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mofa_gguf.convert import CheckpointError, convert
from mofa_gguf.engine.engine import Engine
from mofa_gguf.engine.errors import InvalidOption, PromptTooLong
from mofa_gguf.engine.options import EngineOptions

FOLDER = Path(__file__).resolve().parents[2] / "data" / "rerankers"


@dataclass(frozen=True)
class Case:
    """A reranker and what is expected of it."""

    engine: Engine
    expected: list[dict[str, Any]]


@pytest.fixture(scope="module", params=["bert", "roberta"])
def case(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Case]:
    source = FOLDER / request.param
    target = tmp_path_factory.mktemp("rerankers") / "model.gguf"
    convert(source, target, "F32", threads=1)
    # The arithmetic of the reference: flash attention rounds to F16.
    exact = EngineOptions(n_threads=1, flash_attn="off", cache_type_k="f32", cache_type_v="f32")
    engine = Engine.load(target, exact)
    yield Case(engine, json.loads((source / "expected.json").read_text("utf-8")))
    engine.close()


def test_a_pair_of_texts_has_the_tokens_of_the_checkpoints_own_tokenizer(case: Case) -> None:
    for each in case.expected:
        assert case.engine.model.vocab.pair(each["query"], each["document"]) == each["tokens"]


def test_scores_are_those_that_transformers_computes(case: Case) -> None:
    outputs = case.engine.rank([each["tokens"] for each in case.expected]).result()
    assert [len(output) for output in outputs] == [1] * len(outputs)
    for output, each in zip(outputs, case.expected, strict=True):
        assert output[0] == pytest.approx(each["score"], abs=1e-2)
        # The rest of the difference is GELU, which llama.cpp approximates on a CPU.
        assert output[0] == pytest.approx(each["score_with_its_gelu"], abs=1e-4)
    scores = [each["score"] for each in case.expected]
    assert max(scores) - min(scores) > 0.3, "scores that all but agree would prove nothing"


def test_a_score_does_not_depend_on_the_batch(case: Case) -> None:
    inputs = [each["tokens"] for each in case.expected]
    together = case.engine.rank(inputs * 20).result()
    for output, tokens in zip(together, inputs, strict=False):
        assert output[0] == pytest.approx(case.engine.rank([tokens]).result()[0][0], abs=1e-4)


def test_a_pair_that_is_too_long_is_refused(case: Case) -> None:
    with pytest.raises(PromptTooLong) as caught:
        case.engine.rank([[5] * 100])
    assert caught.value.n_tokens == 100


def test_a_model_without_such_a_head_refuses(engine: Engine) -> None:
    assert not engine.model.ranks
    with pytest.raises(InvalidOption, match="no reranker"):
        engine.rank([[65, 66]])


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"id2label": {"0": "no", "1": "yes"}}, "id2label"),
        ({"id2label": None}, "id2label"),
        ({"type_vocab_size": 2}, "type_vocab_size"),
    ],
)
def test_a_head_that_llama_cpp_would_run_wrongly_is_not_converted(
    tmp_path: Path, change: dict[str, object], problem: str
) -> None:
    source = tmp_path / "source"
    shutil.copytree(FOLDER / "bert", source)
    config = {**json.loads((source / "config.json").read_text("utf-8")), **change}
    config = {key: value for key, value in config.items() if value is not None}
    (source / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=problem):
        convert(source, tmp_path / "model.gguf", "F32", threads=1)

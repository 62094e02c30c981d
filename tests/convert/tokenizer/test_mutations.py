"""The short form of tools/fuzz_tokenizers.py: every kind of file, damaged a few times."""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

import pytest

from mofa_gguf.convert.errors import TokenizerError
from tests.convert.tokenizer.mutations import mutate_bytes, mutate_json

ROOT = Path(__file__).resolve().parents[3]
N_MUTATIONS = 6


@pytest.fixture(scope="module")
def fuzz() -> Any:
    """The campaign's module."""
    sys.path.insert(0, str(ROOT / "tools"))
    try:
        import fuzz_tokenizers
    finally:
        sys.path.pop(0)
    return fuzz_tokenizers


@pytest.fixture(scope="module")
def sound(fuzz: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, bytes]]:
    """Sound files of every case."""
    files: dict[str, dict[str, bytes]] = fuzz.make_files(tmp_path_factory.mktemp("sound"))
    return files


def test_every_case_damages_a_file_that_it_has(fuzz: Any, sound: dict[str, Any]) -> None:
    assert {case: name in sound[case] for case, name in fuzz.CASES.items()} == dict.fromkeys(
        sound, True
    )


@pytest.mark.parametrize(
    "case",
    [
        *("unigram", "generation", "added tokens", "vocab.txt", "vocab.json", "merges"),
        *("sentencepiece", "tekken"),
    ],
)
def test_a_damaged_file_is_refused_or_converted(
    fuzz: Any, sound: dict[str, Any], case: str
) -> None:
    outcomes = {
        fuzz.attempt(fuzz.damaged(case, sound[case], f"short/{n}")) for n in range(N_MUTATIONS)
    }
    assert outcomes <= {"error", "converted"}


def test_a_case_passes_on_what_is_no_typed_error(
    fuzz: Any, sound: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise KeyError("lost")

    monkeypatch.setattr(fuzz, "build_vocabulary", broken)
    with pytest.raises(KeyError):
        fuzz.attempt(sound["byte-level"])


def test_a_typed_error_is_an_outcome(fuzz: Any) -> None:
    assert fuzz.attempt({"tokenizer.json": b"{"}) == "error"
    assert issubclass(fuzz.TokenizerError, TokenizerError)


def test_the_same_seed_damages_alike_and_damages_at_all() -> None:
    value = {"a": [1, 2, {"b": "c"}], "d": "text"}
    data = b"some bytes of a file"
    seeds = range(40)
    jsons = [mutate_json(value, random.Random(seed)) for seed in seeds]
    blobs = [mutate_bytes(data, random.Random(seed)) for seed in seeds]
    assert jsons == [mutate_json(value, random.Random(seed)) for seed in seeds]
    assert blobs == [mutate_bytes(data, random.Random(seed)) for seed in seeds]
    assert sum(changed != value for changed in jsons) > 25
    assert sum(changed != data for changed in blobs) > 30

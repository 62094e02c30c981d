"""``mofa-gguf cache``: what is kept, and removing it."""

from __future__ import annotations

import io
import json
import os
import time
from pathlib import Path

import pytest

from mofa_gguf.cli.main import main
from tests.cli.conftest import Run


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A cache folder with two models, one of them made two days ago."""
    folder = tmp_path / "cache" / "converted"
    folder.mkdir(parents=True)
    for name, n_bytes, age_s in [("a-Q8_0-1", 2000, 2 * 86400 + 60), ("b-Q4_K_M-2", 500, 0)]:
        (folder / f"{name}.gguf").write_bytes(b"x" * n_bytes)
        note = {"source": f"/models/{name[0]}", "quantization": name[2:6]}
        (folder / f"{name}.json").write_text(json.dumps(note))
        made = time.time() - age_s
        os.utime(folder / f"{name}.gguf", (made, made))
    return folder


def names(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.glob("*") if path.suffix in (".gguf", ".json"))


def test_models_are_listed_with_size_age_and_source(run: Run, cache: Path) -> None:
    ran = run("cache")
    assert ran.code == 0
    first, second = (line.split() for line in ran.out.splitlines()[1:3])
    assert first == ["a-Q8_0-1", "2.0", "kB", "2", "days", "/models/a"]
    assert second == ["b-Q4_K_M-2", "500", "B", "just", "made", "/models/b"]
    assert "in 2 models" in ran.out


def test_json_has_the_same(run: Run, cache: Path) -> None:
    told = json.loads(run("cache", "--json").out)
    assert [model["name"] for model in told["models"]] == ["a-Q8_0-1", "b-Q4_K_M-2"]
    assert told["models"][0]["n_bytes"] == 2000
    assert time.time() - told["models"][0]["made_at_s"] > 86400


def test_an_empty_cache_is_no_error(run: Run) -> None:
    assert "0 B in 0 models" in run("cache").out
    ran = run("cache", "--clear", "--yes")
    assert (ran.code, ran.out) == (0, "")
    assert "nothing to remove" in ran.err


def test_one_model_is_removed_with_its_note(run: Run, cache: Path) -> None:
    ran = run("cache", "--remove", "a-Q8_0-1", "--yes")
    assert (ran.code, ran.out) == (0, "removed 1 model (2.0 kB)\n")
    assert names(cache) == ["b-Q4_K_M-2.gguf", "b-Q4_K_M-2.json"]


def test_clear_removes_all(run: Run, cache: Path) -> None:
    told = json.loads(run("cache", "--clear", "-y", "--json").out)
    assert told["models"] == []
    assert names(cache) == []


def test_nothing_goes_where_nobody_can_be_asked(run: Run, cache: Path) -> None:
    ran = run("cache", "--clear")
    assert (ran.code, len(names(cache))) == (1, 4)
    assert "--yes" in ran.err


class Terminal(io.StringIO):
    """Somebody sits at it."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("answer", "left"), [("n\n", 4), ("y\n", 0)])
def test_a_person_is_asked_first(
    cache: Path, answer: str, left: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", Terminal(answer))
    main(["cache", "--clear"])
    assert len(names(cache)) == left


def test_a_wrong_name_is_answered_with_the_right_ones(run: Run, cache: Path) -> None:
    ran = run("cache", "--remove", "c", "--yes")
    assert ran.code == 1
    assert "it has a-Q8_0-1, b-Q4_K_M-2" in ran.err
    assert run("cache", "--remove", "a-Q8_0-1", "--clear").code == 1
    assert len(names(cache)) == 4

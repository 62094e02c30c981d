"""``demo``: the whole road once."""

from __future__ import annotations

from pathlib import Path

import pytest

from mofa_gguf.cli.demo import get_weather, similarity, weather_tool
from tests.cli.conftest import Run
from tests.cli.tiny_checkpoint import write_tiny_checkpoint


@pytest.mark.parametrize("quantization", ["Q8_0", "BF16"])
def test_the_demo_converts_answers_calls_a_tool_and_embeds(run: Run, quantization: str) -> None:
    result = run("demo", "-q", quantization)
    assert result.code == 0, result.err
    shown = " ".join(result.out.split())
    assert f"to GGUF, {quantization}" in shown
    assert "'gguf' comes from mofa-gguf" in shown
    assert "MoFA is" in shown.split("What is MoFA?", 1)[1]
    assert 'model calls: get_weather({"city": "Paris"})' in shown
    assert "18" in shown.split("model: ")[-1].split("5. Embedding")[0]
    assert "Done in" in shown
    assert list(Path.cwd().iterdir()) == []


def test_a_model_that_fails_the_demo_makes_it_fail(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_tiny_checkpoint(tmp_path / "random")
    monkeypatch.setattr("mofa_gguf.store.demo_checkpoint", lambda: folder)
    result = run("demo")
    assert result.code == 1
    assert result.err.splitlines()[-1].startswith("error: ")
    assert "Done in" not in result.out


def test_the_demos_tool_is_what_the_model_is_told_of() -> None:
    tool = weather_tool().to_dict()
    assert tool["function"]["name"] == get_weather.__name__
    (parameter,) = tool["function"]["parameters"]["properties"]
    assert get_weather(**{parameter: " London "})["temperature"] == 12
    assert get_weather("Atlantis") == {"error": "unknown city"}


def test_similarity_is_the_cosine() -> None:
    assert similarity([1.0, 0.0], [2.0, 0.0]) == 1.0
    assert similarity([1.0, 0.0], [0.0, 3.0]) == 0.0
    assert similarity([0.0, 0.0], [0.0, 3.0]) == 0.0

"""What a ``model`` setting is taken for."""

from __future__ import annotations

from pathlib import Path

import pytest

from mofa_gguf.store import DownloadFailed, ModelMissing
from mofa_gguf.store.reference import (
    DemoReference,
    HubReference,
    PathReference,
    read_hub_reference,
    read_reference,
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "x.gguf").write_bytes(b"GGUF")
    (tmp_path / "org").mkdir()
    (tmp_path / "org" / "name").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("models/x.gguf", PathReference(Path("models/x.gguf"))),
        ("./models", PathReference(Path("models"))),
        ("org/name", PathReference(Path("org/name"))),
        ("Qwen/Qwen3-0.6B", HubReference("Qwen/Qwen3-0.6B")),
        ("Qwen/Qwen3-0.6B-GGUF:Q8_0", HubReference("Qwen/Qwen3-0.6B-GGUF", "Q8_0")),
        ("Qwen/Qwen3-0.6B-GGUF:a-Q8_0.gguf", HubReference("Qwen/Qwen3-0.6B-GGUF", "a-Q8_0.gguf")),
        ("Qwen/Qwen3@v1.0:Q8_0", HubReference("Qwen/Qwen3", "Q8_0", "v1.0")),
        ("hf://org/name", HubReference("org/name")),
        ("hub:org/name:Q4_0", HubReference("org/name", "Q4_0")),
        ("hf://org/name/sub/file.gguf", HubReference("org/name", "sub/file.gguf")),
        ("hf://models/x", HubReference("models/x")),
    ],
)
def test_each_spelling_names_what_it_should(folder: Path, model: str, expected: object) -> None:
    assert read_reference(model) == expected


def test_the_bundled_checkpoint_has_a_name(folder: Path) -> None:
    assert isinstance(read_reference("demo"), DemoReference)


@pytest.mark.parametrize(
    "model",
    [
        "models/y.gguf",  # a typing error beside an existing folder
        "models/y",
        "nowhere/y.gguf",  # a file's name is never looked for on the hub
        "nowhere/model.safetensors",
        "/absolute/path",
        "./relative/path",
        "../org/name",
        "~/models/x",
        "a/b/c",
        "windows\\path",
        "plain",
        "",
        "   ",
        "nul\0character",
        "x" * 5000,
    ],
)
def test_a_path_that_does_not_exist_is_never_taken_for_a_hub_id(folder: Path, model: str) -> None:
    with pytest.raises(ModelMissing) as caught:
        read_reference(model)
    assert caught.value.model == model


def test_the_error_for_a_missing_path_tells_how_to_mean_the_hub(folder: Path) -> None:
    with pytest.raises(ModelMissing, match=r"write hf://models/y if you mean"):
        read_reference("models/y")


def test_a_relative_path_is_relative_to_the_given_folder(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    expected = PathReference(folder / "models" / "x.gguf")
    assert read_reference("models/x.gguf", base_dir=folder) == expected


@pytest.mark.parametrize("model", ["hf://", "hf://one", "hub:a/b/", "hf://a b/c", "hf:///x/y"])
def test_a_malformed_hub_reference_is_refused_with_the_right_form(model: str) -> None:
    with pytest.raises(DownloadFailed, match="org/name"):
        read_reference(model)


def test_pull_reads_hub_ids_without_a_prefix_too() -> None:
    assert read_hub_reference("org/name:Q8_0") == HubReference("org/name", "Q8_0")
    assert str(HubReference("org/name", "Q8_0", "v1")) == "org/name@v1:Q8_0"

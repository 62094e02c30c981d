"""A provider's files are vetted, and what is known of them is kept in its cache folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from mofa_gguf.contract import ConfigError
from mofa_gguf.engine.files import vetting
from mofa_gguf.provider.loader import FileLoader
from mofa_gguf.settings import GGUFConfig
from mofa_gguf.store import ResolvedModel, clear, verdict_folder
from tests.support.tiny_gguf import write_tiny_llama


def test_a_probed_file_is_remembered_in_the_cache_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_tiny_llama(tmp_path / "tiny.gguf")
    config = GGUFConfig(model=str(path), cache_dir=tmp_path / "cache", probe="always", n_ctx=64)
    found = ResolvedModel(path, "gguf", str(path))
    seen: list[Path] = []
    monkeypatch.setattr(vetting, "probe", seen.append)
    for _ in range(2):
        FileLoader().measure(config, found, budget_bytes=2**30, n_models=1)
        vetting._passed.clear()
    assert seen == [path]
    assert len(list(verdict_folder(config.cache_dir).iterdir())) == 1
    clear(config.cache_dir)
    assert not verdict_folder(config.cache_dir).exists()


def test_the_default_probes_what_is_not_known_through_and_through() -> None:
    assert GGUFConfig(model="m.gguf").engine_options().probe == "auto"


def test_an_unknown_way_of_probing_is_refused() -> None:
    with pytest.raises(ConfigError, match="probe"):
        GGUFConfig(model="m.gguf", probe="sometimes")

"""Models with random weights for the engine's tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mofa_gguf.engine.engine import Engine
from mofa_gguf.engine.options import EngineOptions
from tests.support.tiny_gguf import write_tiny_llama


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of two layers with random weights and one token a byte."""
    return write_tiny_llama(tmp_path_factory.mktemp("models") / "tiny.gguf")


@pytest.fixture
def engine(tiny_model: Path) -> Iterator[Engine]:
    """The tiny model on one thread, with arithmetic that does not depend on the batch.

    Flash attention rounds to F16 inside and adds up differently in another batch: enough to turn
    a choice between two equally likely tokens.
    """
    loaded = Engine.load(
        tiny_model,
        EngineOptions(n_threads=1, cache_type_k="f32", cache_type_v="f32", flash_attn="off"),
    )
    yield loaded
    loaded.close()

"""One server for the whole run, over a model with random weights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from openai import OpenAI

from mofa_gguf import GGUFConfig, GGUFProvider
from tests.server.serving import Served, serving
from tests.support.tiny_gguf import TinyLlama, write_tiny_llama

TEMPLATE = Path(__file__).parent.parent / "data/chat/templates/chatml_with_tools.jinja"


@pytest.fixture(scope="session")
def tools_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose template knows tools, greedy unless asked otherwise."""
    shape = TinyLlama(
        n_ctx=2048,
        chat_template=TEMPLATE.read_text("utf-8"),
        metadata={"general.sampling.temp": 0.0},
    )
    return write_tiny_llama(tmp_path_factory.mktemp("server") / "tiny-tools.gguf", shape)


@pytest.fixture(scope="session")
def served(tools_model: Path) -> Iterator[Served]:
    """The model above behind OpenAI's API."""
    config = GGUFConfig(model=str(tools_model), n_threads=1, flash_attn="off", speculation="off")
    with serving(GGUFProvider(config)) as running:
        yield running


@pytest.fixture
def client(served: Served) -> Iterator[OpenAI]:
    """OpenAI's own client, pointed at the server."""
    with served.client() as opened:
        yield opened

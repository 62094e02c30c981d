"""Providers over a model with random weights."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mofa_gguf import GGUFConfig, GGUFProvider
from tests.support.tiny_gguf import TinyLlama, write_tiny_llama


@pytest.fixture(scope="session")
def tiny_chat_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama with random weights, a chat template and one token a byte."""
    shape = TinyLlama(n_ctx=512, metadata={"general.sampling.temp": 0.0})
    return write_tiny_llama(tmp_path_factory.mktemp("provider") / "tiny-chat.gguf", shape)


@pytest.fixture
async def provider(tiny_chat_model: Path) -> AsyncIterator[GGUFProvider]:
    """A provider of the model above, with arithmetic that does not depend on the batch."""
    config = GGUFConfig(model=str(tiny_chat_model), n_threads=1, flash_attn="off")
    async with GGUFProvider(config) as opened:
        yield opened

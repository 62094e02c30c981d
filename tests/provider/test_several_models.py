"""One provider with several models, and what a provider says of models it has not loaded."""

from __future__ import annotations

import asyncio
import gc
import logging
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from mofa_gguf import (
    ChatCompletionRequest,
    ChatMessage,
    ConfigError,
    EmbeddingRequest,
    GGUFConfig,
    GGUFProvider,
    ModelNotFound,
    Other,
    QuotaExceeded,
    load_provider,
)
from mofa_gguf.engine.options import EngineOptions
from mofa_gguf.provider.footprint import footprint, share_of
from mofa_gguf.provider.loaded import LoadedModel
from mofa_gguf.provider.warming import _compute_one_token
from tests.support.tiny_gguf import TinyLlama, write_tiny_llama

MIB = 2**20


def ask(model: str = "", **options: Any) -> ChatCompletionRequest:
    given = {"max_tokens": 4, "ignore_eos": True, **options}
    return ChatCompletionRequest(model=model, messages=[ChatMessage.user("Hello")], **given)


@pytest.fixture(scope="session")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model made for embedding."""
    shape = TinyLlama(n_ctx=128, metadata={"llama.pooling_type": 1})
    return write_tiny_llama(tmp_path_factory.mktemp("embedder") / "vectors.gguf", shape)


@pytest.fixture
def models(tiny_chat_model: Path, embedder: Path) -> dict[str, Any]:
    """Two for chat, of which one has a shorter context, and one that embeds."""
    chat = str(tiny_chat_model)
    return {"big": chat, "small": {"model": chat, "n_ctx": 256}, "vectors": str(embedder)}


def configured(models: dict[str, Any], **options: Any) -> GGUFConfig:
    return GGUFConfig(models=models, n_threads=1, flash_attn="off", **options)


@pytest.fixture
async def provider(models: dict[str, Any]) -> AsyncIterator[GGUFProvider]:
    async with GGUFProvider(configured(models)) as opened:
        yield opened


@pytest.fixture
def room_for_one(tiny_chat_model: Path) -> int:
    """Bytes for the largest model and no other."""
    return footprint(tiny_chat_model, EngineOptions(n_threads=1, flash_attn="off")).n_bytes + MIB


def stages(provider: GGUFProvider) -> dict[str, str]:
    return {model.name: model.stage for model in provider.status().models}


class TestChoosing:
    async def test_the_request_says_which_and_the_first_is_the_default(
        self, provider: GGUFProvider
    ) -> None:
        assert provider.default_model() == "big"
        assert provider.supported_models() == ["big", "small", "vectors"]
        assert (await provider.chat(ask())).model == "big"
        assert stages(provider) == {"big": "ready", "small": "absent", "vectors": "absent"}
        assert (await provider.chat(ask("small"))).model == "small"
        assert (await provider.get_model_info("small")).context_window == 256
        assert (await provider.get_model_info("")).id == "big"

    async def test_an_unknown_name_is_answered_with_the_right_ones(
        self, provider: GGUFProvider
    ) -> None:
        with pytest.raises(ModelNotFound, match=r"did you mean 'small'.*big, small, vectors"):
            await provider.chat(ask("smal"))
        with pytest.raises(ModelNotFound):
            await provider.unload("smal")
        with pytest.raises(ModelNotFound):
            await provider.count_tokens([], model="smal")

    async def test_vectors_come_from_the_model_made_for_them(self, provider: GGUFProvider) -> None:
        for name in ("", "text-embedding-ada-002", "vectors"):
            response = await provider.embedding(EmbeddingRequest(model=name, input="x"))
            assert response.model == "vectors"
        response = await provider.embedding(EmbeddingRequest(model="small", input="x"))
        assert response.model == "small"

    async def test_it_can_what_one_of_its_models_can_and_loads_none_to_know(
        self, provider: GGUFProvider
    ) -> None:
        assert provider.supports_embedding()
        assert not provider.supports_tools()
        assert set(stages(provider).values()) == {"absent"}

    async def test_a_config_file_reads_like_this(
        self, tmp_path: Path, tiny_chat_model: Path, embedder: Path
    ) -> None:
        (tmp_path / "chat.gguf").symlink_to(tiny_chat_model)
        (tmp_path / "mofa.toml").write_text(
            f"""
            [providers.local]
            provider = "gguf"
            default_model = "chat"
            memory_budget = "2GiB"
            keep_alive = "10m"
            n_threads = 1

            [providers.local.models]
            vectors = '{embedder}'

            [providers.local.models.chat]
            model = "chat.gguf"
            n_ctx = 128
            """
        )
        async with load_provider(tmp_path / "mofa.toml") as local:
            assert (await local.chat(ask())).model == "chat"
            assert (await local.get_model_info("chat")).context_window == 128
            assert isinstance(local, GGUFProvider)
            assert local.status().budget_bytes == 2**31


class TestMemory:
    async def test_the_models_stay_within_the_budget(self, models: dict[str, Any]) -> None:
        async with GGUFProvider(configured(models)) as measuring:
            for name in models:
                await measuring.load(name)
            sizes = {model.name: model.n_bytes for model in measuring.status().models}
        budget = sizes["big"] + sizes["vectors"] + MIB
        async with GGUFProvider(configured(models, memory_budget=budget)) as provider:
            for name in ("big", "vectors", "small", "big"):
                await provider.load(name)
                status = provider.status()
                assert status.used_bytes <= budget == status.budget_bytes
            assert stages(provider)["vectors"] == "absent"
            assert stages(provider)["big"] == "ready"

    async def test_a_stream_keeps_its_model_and_a_refusal_has_the_numbers(
        self, models: dict[str, Any], room_for_one: int
    ) -> None:
        config = configured(models, memory_budget=room_for_one, memory_wait_s=0.05)
        async with GGUFProvider(config) as provider:
            stream = provider.chat_stream(ask(max_tokens=200))
            await anext(stream)
            with pytest.raises(QuotaExceeded, match="big") as caught:
                await provider.chat(ask("small"))
            assert caught.value.n_bytes_needed is not None
            assert caught.value.n_bytes_needed > (caught.value.n_bytes_free or 0)
            assert stages(provider)["big"] == "ready"
            await stream.aclose()
            assert (await provider.chat(ask("small"))).model == "small"

    async def test_who_holds_a_model_keeps_it(
        self, models: dict[str, Any], room_for_one: int
    ) -> None:
        config = configured(models, memory_budget=room_for_one, memory_wait_s=0.05)
        async with GGUFProvider(config) as provider:
            async with provider.hold("big"):
                with pytest.raises(QuotaExceeded):
                    await provider.load("small")
            await provider.load("small")

    async def test_unloading_frees_and_the_next_request_loads_again(
        self, provider: GGUFProvider
    ) -> None:
        first = (await provider.chat(ask())).content()
        await provider.unload()
        assert stages(provider)["big"] == "absent"
        assert provider.stats() is None
        assert (await provider.chat(ask())).content() == first

    async def test_a_request_may_say_how_long_its_model_stays(self, provider: GGUFProvider) -> None:
        await provider.chat(ask(keep_alive="10m"))
        assert stages(provider)["big"] == "ready"
        await provider.chat(ask(keep_alive=0))
        await provider.unload()  # waits until it is gone
        assert stages(provider)["big"] == "absent"
        with pytest.raises(ConfigError, match="a duration is"):
            await provider.chat(ask(keep_alive="a while"))

    def test_an_estimate_counts_weights_cache_and_buffers(self, tiny_chat_model: Path) -> None:
        def estimate(**options: Any) -> int:
            return footprint(tiny_chat_model, EngineOptions(n_threads=1, **options)).n_bytes

        assert estimate(n_ctx=256) > tiny_chat_model.stat().st_size * 0.9
        # Two layers, two heads of 16 values, keys and values, in F16.
        assert estimate(n_ctx=512) >= estimate(n_ctx=256) + 256 * 2 * 2 * 16 * 2 * 2

    def test_an_automatic_context_is_made_to_fit_the_budget(self, tmp_path: Path) -> None:
        path = write_tiny_llama(tmp_path / "long.gguf", TinyLlama(n_ctx=2**17))
        fitting = footprint(path, EngineOptions(n_threads=1), memory_bytes=64 * MIB)
        assert isinstance(fitting.options.n_ctx, int)
        assert 512 <= fitting.options.n_ctx < 2**17
        assert fitting.n_bytes <= 64 * MIB
        assert footprint(path, EngineOptions(n_threads=1)).options.n_ctx == "auto"

    @pytest.mark.parametrize(
        ("budget", "n_models", "weights", "share"),
        [(8, 1, 2, 8), (8, 2, 1, 4.5), (8, 2, 5, 6.5), (8, 4, 9, 9)],
    )
    def test_an_automatic_context_leaves_room_for_the_other_models(
        self, budget: int, n_models: int, weights: int, share: float
    ) -> None:
        assert share_of(budget * MIB, n_models, weights * MIB) == share * MIB


class TestStartAndEnd:
    async def test_warming_up_begins_by_itself(self, models: dict[str, Any]) -> None:
        async with GGUFProvider(configured(models, warm_up=("vectors", "small"))) as provider:
            until = time.monotonic() + 120
            while stages(provider) != {"big": "absent", "small": "ready", "vectors": "ready"}:
                assert time.monotonic() < until
                await asyncio.sleep(0.01)
            await provider.unload("small")  # after the token is computed

    def test_a_stream_left_behind_in_a_closed_loop_holds_no_model(
        self, tiny_chat_model: Path
    ) -> None:
        provider = GGUFProvider(GGUFConfig(model=str(tiny_chat_model), n_threads=1))

        async def read_a_little() -> None:
            async for _chunk in provider.chat_stream(ask(max_tokens=300)):
                break  # without aclose

        # Not asyncio.run, which closes what was left open.
        loop = asyncio.new_event_loop()
        loop.set_exception_handler(lambda *_: None)  # it complains of the stream
        loop.run_until_complete(read_a_little())
        loop.close()
        gc.collect()
        assert [model.n_users for model in provider.status().models] == [0]
        asyncio.run(provider.unload())
        asyncio.run(provider.close())

    async def test_a_model_that_cannot_warm_up_is_told_to_its_first_request(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        config = GGUFConfig(model=str(tmp_path / "none.gguf"), warm_up=True)
        async with GGUFProvider(config) as provider:
            until = time.monotonic() + 120
            while "could not be warmed up" not in caplog.text:
                assert time.monotonic() < until
                await asyncio.sleep(0.01)
            with pytest.raises(ModelNotFound):
                await provider.chat(ask())

    async def test_a_bug_in_one_that_warms_up_keeps_no_other_from_it(
        self, models: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        warmed = _compute_one_token

        def break_down(model: LoadedModel) -> None:
            if model.config.name == "small":
                raise AssertionError("a bug")
            warmed(model)

        monkeypatch.setattr("mofa_gguf.provider.warming._compute_one_token", break_down)
        async with GGUFProvider(configured(models, warm_up=("small", "vectors"))) as provider:
            until = time.monotonic() + 120
            while stages(provider)["vectors"] != "ready":
                assert time.monotonic() < until
                await asyncio.sleep(0.01)

    async def test_closing_while_a_checkpoint_is_converted(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        provider = GGUFProvider(GGUFConfig(model="demo", cache_dir=tmp_path / "cache"))
        request = asyncio.create_task(provider.chat(ask()))
        until = time.monotonic() + 120
        while not list((tmp_path / "cache").rglob("partial-*")):
            assert time.monotonic() < until
            await asyncio.sleep(0.001)
        started = time.monotonic()
        await provider.close()
        assert time.monotonic() - started < 10
        with pytest.raises(Other, match="closed"):
            await request
        assert not list((tmp_path / "cache").rglob("partial-*/*"))

    def test_a_process_may_end_while_a_model_loads(self, tmp_path: Path) -> None:
        cache = tmp_path / "cache"
        code = (
            "import time; from pathlib import Path\n"
            "from mofa_gguf import GGUFConfig, GGUFProvider\n"
            f"cache = Path({str(cache)!r})\n"
            "provider = GGUFProvider(GGUFConfig(model='demo', cache_dir=cache, warm_up=True))\n"
            "while not list(cache.rglob('partial-*')): time.sleep(0.001)\n"
        )
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert (done.returncode, done.stderr) == (0, "")
        assert not list(cache.rglob("partial-*/*"))


class TestUnloaded:
    async def test_a_checkpoint_says_what_it_can_before_it_is_converted(
        self, tmp_path: Path
    ) -> None:
        provider = GGUFProvider(GGUFConfig(model="demo", cache_dir=tmp_path / "cache"))
        assert provider.supports_tools()
        assert provider.supports_embedding()
        assert not (tmp_path / "cache").exists()

    def test_nothing_is_known_of_what_is_not_there(self, tmp_path: Path) -> None:
        for model in ("org/not-downloaded", str(tmp_path / "none"), str(tmp_path)):
            provider = GGUFProvider(GGUFConfig(model=model, cache_dir=tmp_path / "cache"))
            assert not provider.supports_tools()
            assert not provider.supports_embedding()

"""The provider: one way in, one way out. It orchestrates; the rooms below compute."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from pathlib import Path

from mofa_gguf.contract import (
    ChatCompletionChunk,
    ChatCompletionRequest,
    ChatCompletionResponse,
    ChatMessage,
    ConfigError,
    EmbeddingRequest,
    EmbeddingResponse,
    LLMError,
    LLMProvider,
    ModelInfo,
    ProviderNotSupported,
    Tool,
    gather,
)
from mofa_gguf.engine.running.stats import EngineStats
from mofa_gguf.provider.answer import ChunkMaker, choice_chunks
from mofa_gguf.provider.catalog import Catalog
from mofa_gguf.provider.completing import RawPrompt, check_raw, parser_of, prompt_of
from mofa_gguf.provider.description import Health, abilities_of, health_of, model_info
from mofa_gguf.provider.embedding import check_embedding, check_lengths, embedded
from mofa_gguf.provider.errors import translated
from mofa_gguf.provider.loaded import LoadedModel
from mofa_gguf.provider.observing import CHAT, COMPLETION, EMBEDDINGS, observed
from mofa_gguf.provider.parameters import read_parameters
from mofa_gguf.provider.pool import ModelPool
from mofa_gguf.provider.requests import check_abilities, submit
from mofa_gguf.provider.reranking import (
    Reranking,
    check_pairs,
    check_rerank,
    pair_tokens,
    ranked,
)
from mofa_gguf.provider.shapes import check_embedding_request, check_request
from mofa_gguf.provider.status import ProviderStatus, status_of
from mofa_gguf.provider.warming import warm_up
from mofa_gguf.settings import GGUFConfig

logger = logging.getLogger(__name__)


class GGUFProvider(LLMProvider):
    """Local models behind MoFA's contract, in this process, on CPU or GPU.

    A model is loaded by the first request that needs it, off the event loop; :meth:`load` does
    it beforehand. With several (``models`` in the config) a request's ``model`` chooses, and those
    that nobody uses make room for others (``memory_budget``). One provider may serve many tasks,
    threads and event loops. Use it as an async context manager, or call :meth:`close`. Opens no
    connection, unless ``model`` is a hub id that is not on disk.
    """

    def __init__(self, config: GGUFConfig) -> None:
        self.config = config
        self._catalog = Catalog(config, lambda name: self._pool.get(name))
        budget = config.memory_budget
        self._pool = ModelPool(
            self._catalog.configs,
            budget_bytes=None if budget == "auto" else budget,
            wait_s=config.memory_wait_s,
        )
        warm_up(self._pool, self._catalog.configs)

    def name(self) -> str:
        """ "gguf"."""
        return "gguf"

    def default_model(self) -> str:
        """The name of the model that requests without one get."""
        return self._catalog.default

    def supported_models(self) -> list[str]:
        """What a request may call a model: the configured names, the default's first.

        A single model may also be called what the config's ``model`` says.
        """
        return self._catalog.names()

    def supports_tools(self) -> bool:
        """Whether a chat template knows tools: that of one of the models, if there are several.

        Taken from the loaded model, the file's header or the checkpoint. A model that must be
        downloaded first says False until it is there.
        """
        return self._catalog.any_can(lambda abilities: abilities.tools)

    def supports_embedding(self) -> bool:
        """Whether hidden states can be pooled; see :meth:`supports_tools`."""
        return self._catalog.any_can(lambda abilities: abilities.embedding)

    async def load(self, model: str = "") -> None:
        """Load a model now, by default the default one. Raises what a first request would."""
        async with self.hold(model):
            pass

    async def unload(self, model: str = "") -> None:
        """Free a model's memory once those who use it now are done; the next request loads it.

        Raises ModelNotFound.
        """
        with translated():
            await asyncio.wrap_future(self._pool.unload(self._catalog.chosen(model)))

    @asynccontextmanager
    async def hold(self, model: str = "") -> AsyncIterator[None]:
        """Load a model, and keep it loaded while the block runs, whoever needs its memory.

        Raises what a request would.
        """
        with translated():
            async with self._use(self._catalog.chosen(model)):
                yield

    async def chat(self, request: ChatCompletionRequest) -> ChatCompletionResponse:
        """Answer a request whole: :meth:`chat_stream`, gathered up."""
        async with aclosing(self._answer(request, streams=False)) as stream:
            return await gather(stream)

    async def chat_stream(
        self, request: ChatCompletionRequest
    ) -> AsyncGenerator[ChatCompletionChunk, None]:
        """Answer a request piece by piece. Closing the stream cancels the request.

        Raises ModelNotFound, ConfigError, ContextLengthExceeded, ProviderNotSupported,
        RateLimited, QuotaExceeded, Timeout, ApiError or Other.
        """
        async with aclosing(self._answer(request, streams=True)) as stream:
            async for chunk in stream:
                yield chunk

    async def complete_stream(
        self, prompt: RawPrompt, request: ChatCompletionRequest
    ) -> AsyncGenerator[ChatCompletionChunk, None]:
        """Go on from a bare text, or from token ids, without a template.

        ``request`` has the model and the parameters, and no messages. Raises what
        :meth:`chat_stream` does.
        """
        check_request(request)
        check_raw(request)
        async with aclosing(self._answer(request, streams=True, raw=prompt)) as stream:
            async for chunk in stream:
                yield chunk

    async def _answer(
        self, request: ChatCompletionRequest, *, streams: bool, raw: RawPrompt | None = None
    ) -> AsyncGenerator[ChatCompletionChunk, None]:
        check_request(request)
        asked = request.model or self.default_model()
        operation = CHAT if raw is None else COMPLETION
        with (
            observed(operation, self.name(), asked, request, streams=streams) as seen,
            translated(),
        ):
            name = self._catalog.chosen(request.model)
            parameters = read_parameters(request)
            async with AsyncExitStack() as stack:
                using = self._use(name, keep_alive_s=parameters.keep_alive)
                model = await stack.enter_async_context(using)
                check_abilities(request, abilities_of(model))
                prompt = await model.apart(prompt_of, model, request, parameters, raw)
                make = ChunkMaker(name)
                generations = await model.apart(submit, model, request, parameters, prompt)
                seen.taken_in(make.id)
                for generation in generations:
                    stack.callback(generation.cancel)
                for index, generation in enumerate(generations):
                    parser = parser_of(model, request, prompt)
                    chunks = choice_chunks(generation, parser, index)
                    await stack.enter_async_context(aclosing(chunks))
                    async for choice, end in chunks:
                        ends = seen.ends if end is None else [*seen.ends, end]
                        last = len(ends) == len(generations)
                        chunk = make.chunk(choice, ends if last else ())
                        seen.chunk(chunk, end, last=last)
                        yield chunk

    async def embedding(self, request: EmbeddingRequest) -> EmbeddingResponse:
        """One vector of length 1 for each text.

        A model id that is not known is taken for the model that embeds. Raises
        ContextLengthExceeded for a text the model cannot take in (or cuts it, with
        ``embedding_overflow="truncate"``), ProviderNotSupported, RateLimited or ConfigError.
        """
        check_embedding_request(request)
        name = await asyncio.to_thread(self._catalog.for_embedding, request.model)
        with observed(EMBEDDINGS, self.name(), name, request) as seen, translated():
            check_embedding(request)
            async with self._use(name) as model:
                if not abilities_of(model).embedding:
                    raise ProviderNotSupported(f"{name} cannot embed text")
                inputs = await model.apart(
                    lambda: [model.embedding_tokens(text) for text in request.texts()]
                )
                check_lengths(inputs, model.engine.n_embedding_max)
                future = model.engine.embed(inputs)
                seen.taken_in(f"embd-{uuid.uuid4().hex}")
                vectors = await asyncio.wrap_future(future)
            response = embedded(name, vectors, inputs)
            seen.embedded(response)
        return response

    async def rerank(
        self, query: str, documents: Sequence[str], top_n: int | None = None, *, model: str = ""
    ) -> Reranking:
        """The documents by how well they answer the query, best first, the first ``top_n`` of them.

        For models with a head that judges two texts (rerankers). Raises ProviderNotSupported for
        others, ContextLengthExceeded for a document that is too long beside the query, ConfigError,
        ModelNotFound or RateLimited.
        """
        with translated():
            check_rerank(query, documents, top_n)
            name = self._catalog.chosen(model)
            async with self._use(name) as loaded:
                if not loaded.engine.model.ranks:
                    raise ProviderNotSupported(
                        f"{name} is no reranker; load a model with a head that judges two texts",
                        provider="gguf",
                    )
                pairs = await loaded.apart(
                    lambda: [pair_tokens(loaded, query, document) for document in documents]
                )
                check_pairs(pairs, loaded.engine.n_embedding_max)
                outputs = await asyncio.wrap_future(loaded.engine.rank(pairs))
            return Reranking(name, ranked(documents, outputs, top_n), sum(map(len, pairs)))

    async def health_check(self) -> bool:
        """Whether the default model is loaded or can be; :meth:`health` tells why not."""
        return (await self.health()).healthy

    async def health(self, model: str = "") -> Health:
        """What was asked for and what was got; loads the model if it is not loaded.

        Raises ModelNotFound.
        """
        name = self._catalog.chosen(model)
        try:
            with translated():
                async with self._use(name) as loaded:
                    return health_of(loaded, name)
        except LLMError as error:
            logger.warning("%s is not healthy: %s", name, error)
            return Health(False, name, str(error))

    async def get_model_info(self, model: str) -> ModelInfo:
        """Name, limits and capabilities of a model, and how it is loaded.

        Raises ModelNotFound for a name that is not among :meth:`supported_models`.
        """
        name = self._catalog.chosen(model)
        with translated():
            async with self._use(name) as loaded:
                return model_info(loaded, name)

    async def tokenize(
        self,
        text: str,
        *,
        add_special: bool = False,
        parse_special: bool = False,
        model: str = "",
    ) -> list[int]:
        """Token ids of ``text``.

        ``add_special`` adds what the model wants around a text; ``parse_special`` reads control
        tokens written out in the text as tokens.
        """
        if not isinstance(text, str):
            raise ConfigError(f"text is no text but a {type(text).__name__}", field="text")
        with translated():
            async with self._use(self._catalog.chosen(model)) as loaded:
                return await loaded.apart(
                    loaded.vocab.tokenize,
                    text,
                    add_special=add_special,
                    parse_special=parse_special,
                )

    async def count_tokens(
        self,
        messages: Sequence[ChatMessage],
        tools: Sequence[Tool] | None = None,
        *,
        model: str = "",
    ) -> int:
        """How many tokens a request with these messages and tools has before the answer."""
        with translated():
            async with self._use(self._catalog.chosen(model)) as loaded:
                prompt = await loaded.apart(loaded.prompt, messages, tools, {})
                return len(prompt.tokens)

    async def save_session(
        self,
        path: Path | str,
        messages: Sequence[ChatMessage],
        tools: Sequence[Tool] | None = None,
        *,
        model: str = "",
    ) -> int:
        """Write what is computed of a conversation to a file; returns how many tokens that is.

        A provider of the same model that loads the file goes on without computing them again.
        Raises ConfigError where nothing of the conversation is cached or the file cannot be
        written.
        """
        with translated():
            async with self._use(self._catalog.chosen(model)) as loaded:
                prompt = await loaded.apart(
                    loaded.prompt, messages, tools, {"add_generation_prompt": False}
                )
                return await asyncio.wrap_future(loaded.engine.save_session(prompt.tokens, path))

    async def load_session(self, path: Path | str, *, model: str = "") -> int:
        """Take a saved conversation into the prefix cache; returns how many tokens it has.

        Raises ConfigError for a damaged file or one of another model, and QuotaExceeded when the
        KV cache has no room.
        """
        with translated():
            async with self._use(self._catalog.chosen(model)) as loaded:
                return await asyncio.wrap_future(loaded.engine.load_session(path))

    def stats(self, model: str = "") -> EngineStats | None:
        """A model's counts and speed since it was loaded; None while it is not.

        Raises ModelNotFound. :meth:`status` tells of all models.
        """
        loaded = self._pool.get(self._catalog.chosen(model))
        return loaded.engine.stats() if loaded is not None else None

    def status(self) -> ProviderStatus:
        """Which models are loaded, who uses them, what they take, and their counts and speed."""
        return status_of(self._pool)

    async def close(self) -> None:
        """Free all models; requests that run or come later get Other. May be called twice.

        Returns within seconds, also while a model is loaded or converted.
        """
        await asyncio.to_thread(self._pool.close)

    @asynccontextmanager
    async def _use(
        self, name: str, *, keep_alive_s: float | None = None
    ) -> AsyncIterator[LoadedModel]:
        """The model, loaded if need be, which stays while the block runs."""
        use = self._pool.ask(name)
        try:
            yield await asyncio.wrap_future(use.future)
        finally:
            use.release(keep_alive_s=keep_alive_s)

"""The provider: one way in, one way out. It orchestrates; the rooms below compute."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, aclosing
from pathlib import Path

from mofa_gguf.contract import (
    ChatCompletionChunk,
    ChatCompletionRequest,
    ChatCompletionResponse,
    ChatMessage,
    EmbeddingData,
    EmbeddingRequest,
    EmbeddingResponse,
    EmbeddingUsage,
    LLMError,
    LLMProvider,
    ModelInfo,
    ModelNotFound,
    Other,
    ProviderNotSupported,
    Tool,
    gather,
)
from mofa_gguf.engine.request import FinishEvent
from mofa_gguf.engine.stats import EngineStats
from mofa_gguf.provider.answer import ChunkMaker, choice_chunks
from mofa_gguf.provider.description import (
    Abilities,
    Health,
    abilities_of,
    health_of,
    model_info,
    model_name,
    peek,
)
from mofa_gguf.provider.errors import translated
from mofa_gguf.provider.loaded import LoadedModel
from mofa_gguf.provider.parameters import read_parameters
from mofa_gguf.provider.requests import (
    check_abilities,
    check_embedding,
    offered_tools,
    render_prompt,
    submit,
)
from mofa_gguf.settings import GGUFConfig

logger = logging.getLogger(__name__)


class GGUFProvider(LLMProvider):
    """A local model behind MoFA's contract, in this process, on CPU or GPU.

    The model is loaded by the first request that needs it, off the event loop; :meth:`load` does
    it beforehand. One provider may serve many tasks, threads and event loops. Use it as an async
    context manager, or call :meth:`close`. Opens no connection, unless ``model`` is a hub id that
    is not on disk.
    """

    def __init__(self, config: GGUFConfig) -> None:
        self.config = config
        self._model_name = model_name(config)
        self._loading = threading.Lock()
        self._loaded: LoadedModel | None = None
        self._closed = False

    def name(self) -> str:
        """ "gguf"."""
        return "gguf"

    def default_model(self) -> str:
        """The configured model's name."""
        return self._model_name

    def supported_models(self) -> list[str]:
        """The configured model's name and, where it differs, what the config calls it."""
        return list(dict.fromkeys([self._model_name, self.config.model]))

    def supports_tools(self) -> bool:
        """Whether the chat template knows tools.

        Taken from the loaded model, or from the file's header. A model that must be converted or
        downloaded first says False until it is loaded.
        """
        return self._abilities().tools

    def supports_embedding(self) -> bool:
        """Whether the model's hidden states can be pooled; see :meth:`supports_tools`."""
        return self._abilities().embedding

    async def load(self) -> None:
        """Load the model now. Raises what a first request would."""
        await self._model()

    async def chat(self, request: ChatCompletionRequest) -> ChatCompletionResponse:
        """Answer a request whole: :meth:`chat_stream`, gathered up."""
        async with aclosing(self.chat_stream(request)) as stream:
            return await gather(stream)

    async def chat_stream(
        self, request: ChatCompletionRequest
    ) -> AsyncGenerator[ChatCompletionChunk, None]:
        """Answer a request piece by piece. Closing the stream cancels the request.

        Raises ModelNotFound, ConfigError, ContextLengthExceeded, ProviderNotSupported,
        RateLimited, QuotaExceeded, Timeout, ApiError or Other.
        """
        with translated():
            self._check_model(request.model)
            parameters = read_parameters(request)
            model = await self._model()
            check_abilities(request, abilities_of(model))
            prompt = await asyncio.to_thread(render_prompt, model, request, parameters)
            make = ChunkMaker(self._model_name)
            generations = await asyncio.to_thread(submit, model, request, parameters, prompt)
            ends: list[FinishEvent] = []
            async with AsyncExitStack() as stack:
                for generation in generations:
                    stack.callback(generation.cancel)
                for index, generation in enumerate(generations):
                    parser = model.template.parser(offered_tools(request) or [], prompt=prompt.text)
                    chunks = choice_chunks(generation, parser, index)
                    await stack.enter_async_context(aclosing(chunks))
                    async for choice, end in chunks:
                        if end is not None:
                            ends.append(end)
                        over = len(ends) == len(generations)
                        yield make.chunk(choice, ends if over else ())

    async def embedding(self, request: EmbeddingRequest) -> EmbeddingResponse:
        """One vector of length 1 for each text. Any model id is taken for the loaded model.

        Raises ContextLengthExceeded for a text the model cannot take in (or cuts it, with
        ``embedding_overflow="truncate"``), ProviderNotSupported, RateLimited or ConfigError.
        """
        with translated():
            check_embedding(request)
            model = await self._model()
            if not abilities_of(model).embedding:
                raise ProviderNotSupported(f"{self._model_name} cannot embed text")
            inputs = await asyncio.to_thread(
                lambda: [model.embedding_tokens(text) for text in request.texts()]
            )
            vectors = await asyncio.wrap_future(model.engine.embed(inputs))
        n_tokens = sum(map(len, inputs))
        return EmbeddingResponse(
            model=self._model_name,
            data=[EmbeddingData(index=i, embedding=vector) for i, vector in enumerate(vectors)],
            usage=EmbeddingUsage(prompt_tokens=n_tokens, total_tokens=n_tokens),
        )

    async def health_check(self) -> bool:
        """Whether the model is loaded or can be; :meth:`health` tells why not."""
        return (await self.health()).healthy

    async def health(self) -> Health:
        """What was asked for and what was got; loads the model if it is not loaded."""
        try:
            model = await self._model()
        except LLMError as error:
            logger.warning("%s is not healthy: %s", self._model_name, error)
            return Health(False, self._model_name, str(error))
        return health_of(model, self._model_name)

    async def get_model_info(self, model: str) -> ModelInfo:
        """Name, limits and capabilities of the model, and how it is loaded.

        Raises ModelNotFound for a name that is not :meth:`supported_models`.
        """
        self._check_model(model)
        return model_info(await self._model(), self._model_name)

    async def tokenize(
        self, text: str, *, add_special: bool = False, parse_special: bool = False
    ) -> list[int]:
        """Token ids of ``text``.

        ``add_special`` adds what the model wants around a text; ``parse_special`` reads control
        tokens written out in the text as tokens.
        """
        with translated():
            model = await self._model()
            return await asyncio.to_thread(
                model.vocab.tokenize, text, add_special=add_special, parse_special=parse_special
            )

    async def count_tokens(
        self, messages: Sequence[ChatMessage], tools: Sequence[Tool] | None = None
    ) -> int:
        """How many tokens a request with these messages and tools has before the answer."""
        with translated():
            model = await self._model()
            prompt = await asyncio.to_thread(model.prompt, messages, tools, {})
            return len(prompt.tokens)

    async def save_session(
        self,
        path: Path | str,
        messages: Sequence[ChatMessage],
        tools: Sequence[Tool] | None = None,
    ) -> int:
        """Write what is computed of a conversation to a file; returns how many tokens that is.

        A provider of the same model that loads the file goes on without computing them again.
        Raises ConfigError where nothing of the conversation is cached or the file cannot be
        written.
        """
        with translated():
            model = await self._model()
            prompt = await asyncio.to_thread(
                model.prompt, messages, tools, {"add_generation_prompt": False}
            )
            return await asyncio.wrap_future(model.engine.save_session(prompt.tokens, path))

    async def load_session(self, path: Path | str) -> int:
        """Take a saved conversation into the prefix cache; returns how many tokens it has.

        Raises ConfigError for a damaged file or one of another model, and QuotaExceeded when the
        KV cache has no room.
        """
        with translated():
            model = await self._model()
            return await asyncio.wrap_future(model.engine.load_session(path))

    def stats(self) -> EngineStats | None:
        """Counts since the model was loaded; None before."""
        return self._loaded.engine.stats() if self._loaded is not None else None

    async def close(self) -> None:
        """Free the model; requests that run or come later get Other. May be called twice."""
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._closed = True
        with self._loading:
            if self._loaded is not None:
                self._loaded.close()

    async def _model(self) -> LoadedModel:
        if self._loaded is not None and not self._closed:
            return self._loaded
        with translated():
            return await asyncio.to_thread(self._load)

    def _load(self) -> LoadedModel:
        with self._loading:
            if self._closed:
                raise Other("the provider is closed")
            if self._loaded is None:
                self._loaded = LoadedModel.load(self.config)
            return self._loaded

    def _abilities(self) -> Abilities:
        if self._loaded is not None:
            return abilities_of(self._loaded)
        return peek(self.config)

    def _check_model(self, model: str) -> None:
        if model and not self.supports_model(model):
            known = self.supported_models()
            raise ModelNotFound(
                f"{model!r} is not loaded here; this provider has {', '.join(known)}",
                model=model,
                known=known,
            )

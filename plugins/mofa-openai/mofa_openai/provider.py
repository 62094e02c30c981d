"""The provider: the contract on one side, the official ``openai`` client on the other."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from typing import Any

import anyio
import openai

from mofa_gguf.contract import (
    AuthError,
    ChatCompletionChunk,
    ChatCompletionRequest,
    ChatCompletionResponse,
    ConfigError,
    EmbeddingRequest,
    EmbeddingResponse,
    LLMError,
    LLMProvider,
    ModelCapabilities,
    ModelInfo,
    ModelNotFound,
    Other,
    ProviderNotSupported,
)
from mofa_openai.answers import read_embeddings, read_object, read_response
from mofa_openai.bodies import chat_body, deadline_of
from mofa_openai.clients import ClientPerLoop
from mofa_openai.errors import EXPECTED, timed_out, translate
from mofa_openai.settings import OpenAIConfig
from mofa_openai.stream import StreamReader

log = logging.getLogger(__name__)

# Where servers say how many tokens a model's context has: vLLM, LM Studio and others, llama.cpp.
_CONTEXT_KEYS = ("max_model_len", "context_length", "max_context_length", "n_ctx", "n_ctx_train")


class OpenAIProvider(LLMProvider):
    """A model behind an API of OpenAI's kind.

    Nothing is sent before the first request. Failed requests are not sent again here: that is the
    host's part (``max_retries`` of a configuration, ``RetryingProvider``). One provider may serve
    several event loops.
    """

    def __init__(self, config: OpenAIConfig) -> None:
        self.config = config
        self._clients = ClientPerLoop(config)
        self._only_model: str | None = None

    def name(self) -> str:
        """The neighbour's name, such as "openai" or "ollama"."""
        return self.config.kind

    def default_model(self) -> str:
        """The configured model; empty where the server's only one is meant."""
        return self.config.model

    def supported_models(self) -> list[str]:
        """The configured models. The server may know more, and is asked for any."""
        return [name for name in (self.config.model, self.config.embedding_model) if name]

    def supports_tools(self) -> bool:
        """As configured."""
        return self.config.tools

    def supports_vision(self) -> bool:
        """As configured."""
        return self.config.vision

    def supports_embedding(self) -> bool:
        """As configured."""
        return self.config.embeddings

    async def chat(self, request: ChatCompletionRequest) -> ChatCompletionResponse:
        """Answer a request whole.

        Raises:
            LLMError: as ``mofa_openai.errors`` says.
        """
        timeout_s = deadline_of(request, self.config)
        with self._translated(timeout_s), anyio.fail_after(timeout_s):
            model = request.model or await self._default()
            text = await self._post(chat_body(request, model, self.config), timeout_s)
            return read_response(read_object(text), model)

    async def chat_stream(
        self, request: ChatCompletionRequest
    ) -> AsyncGenerator[ChatCompletionChunk, None]:
        """Answer a request piece by piece. Closing the stream closes the connection.

        Raises:
            Timeout: no piece came for so long; otherwise as ``chat``.
        """
        timeout_s = deadline_of(request, self.config)
        async with aclosing(self._events(request, timeout_s)) as events:
            reader: StreamReader | None = None
            async for model, event in events:
                reader = reader or StreamReader(model)
                for chunk in reader.feed(event):
                    yield chunk
        for chunk in (reader or StreamReader("")).finish():
            yield chunk

    async def embedding(self, request: EmbeddingRequest) -> EmbeddingResponse:
        """One vector for each text.

        Raises:
            ProviderNotSupported: the server is configured not to embed; otherwise as ``chat``.
        """
        if not self.config.embeddings:
            raise ProviderNotSupported(
                f"{self.name()} is configured without embeddings", provider=self.name()
            )
        timeout_s = self.config.timeout_s
        with self._translated(timeout_s), anyio.fail_after(timeout_s):
            model = request.model or self.config.embedding_model or await self._default()
            more: dict[str, Any] = {}
            if request.dimensions is not None:
                more["dimensions"] = request.dimensions
            answer = await self._client().embeddings.with_raw_response.create(
                model=model,
                input=request.texts(),
                encoding_format="float",
                extra_body=more,
                timeout=timeout_s,
            )
            data = read_object(answer.http_response.text)
            return read_embeddings(data, model, len(request.texts()))

    async def health_check(self) -> bool:
        """Whether the server lists its models for us; the log tells why not."""
        try:
            await self._models()
        except LLMError as error:
            log.warning("%s is not healthy: %s", self.name(), error)
            return False
        return True

    async def get_model_info(self, model: str) -> ModelInfo:
        """What the server's list says of a model, the default one where the name is empty.

        Raises:
            ModelNotFound: it is not in the list (``known`` is what is).
            LLMError: the server does not list its models.
        """
        listed = await self._models()
        wanted = model or self.config.model or await self._default()
        found = next(
            (item for item in listed if item.get("id") in (wanted, f"{wanted}:latest")), None
        )
        if found is None:
            known = [str(item.get("id")) for item in listed]
            raise ModelNotFound(
                f"{self.name()} does not list {wanted!r}; it has {', '.join(known) or 'none'}",
                model=wanted,
                known=known,
            )
        return ModelInfo(
            id=str(found["id"]),
            name=str(found["id"]),
            context_window=_context_window(found),
            capabilities=ModelCapabilities(
                streaming=True, tools=self.config.tools, vision=self.config.vision
            ),
        )

    async def close(self) -> None:
        """Close the connections; later requests get Other. May be called twice."""
        await self._clients.close()

    async def _events(
        self, request: ChatCompletionRequest, timeout_s: float
    ) -> AsyncGenerator[tuple[str, dict[str, Any]], None]:
        """The model asked and each event of the server's stream."""
        with self._translated(timeout_s):
            with anyio.fail_after(timeout_s):
                model = request.model or await self._default()
                body = chat_body(request, model, self.config)
                if self.config.stream_usage:
                    body["stream_options"] = {"include_usage": True}
                stream = await self._client().chat.completions.create(
                    model=body.pop("model"),
                    messages=body.pop("messages"),
                    stream=True,
                    extra_body=body,
                    timeout=timeout_s,
                )
            async with stream:
                events = aiter(stream)
                while True:
                    # The deadline is ours: comments that keep a connection alive do not move it.
                    with anyio.fail_after(timeout_s):
                        event = await anext(events, None)
                    if event is None:
                        return
                    if not isinstance(event, openai.BaseModel):
                        raise _no_event(event)
                    yield model, event.to_dict(warnings=False)

    async def _post(self, body: dict[str, Any], timeout_s: float) -> str:
        answer = await self._client().chat.completions.with_raw_response.create(
            model=body.pop("model"),
            messages=body.pop("messages"),
            extra_body=body,
            timeout=timeout_s,
        )
        return answer.http_response.text

    async def _models(self) -> list[dict[str, Any]]:
        timeout_s = self.config.timeout_s
        with self._translated(timeout_s), anyio.fail_after(timeout_s):
            answer = await self._client().models.with_raw_response.list(timeout=timeout_s)
            listed = read_object(answer.http_response.text).get("data")
        return [item for item in listed or () if isinstance(item, dict)]

    async def _default(self) -> str:
        """The configured model, or the only one that the server has."""
        if self.config.model or self._only_model:
            return self.config.model or self._only_model or ""
        known = [str(item.get("id")) for item in await self._models()]
        if len(known) != 1:
            raise ConfigError(
                f"no model is named, and {self.name()} has {', '.join(known) or 'none'}; "
                "set default_model",
                field="model",
                known=known,
            )
        self._only_model = known[0]
        return known[0]

    def _client(self) -> openai.AsyncOpenAI:
        if self.config.key_missing is not None:
            raise AuthError(self.config.key_missing)
        return self._clients.get()

    @contextmanager
    def _translated(self, timeout_s: float) -> Iterator[None]:
        """The client's errors that pass this block become the contract's."""
        try:
            yield
        except TimeoutError as error:
            raise timed_out(timeout_s) from error
        except EXPECTED as error:
            key = self.config.api_key
            secret = key.get_secret_value() if key is not None else None
            # The client's exception holds the request, and with it the key: it is not the cause.
            raise translate(error, secret=secret, timeout_s=timeout_s) from None


def _context_window(listed: dict[str, Any]) -> int | None:
    meta = listed.get("meta")
    places = [listed, meta] if isinstance(meta, dict) else [listed]
    for key in _CONTEXT_KEYS:
        for place in places:
            value = place.get(key)
            if isinstance(value, int) and not isinstance(value, bool) and value > 0:
                return value
    return None


def _no_event(event: object) -> Other:
    return Other(f"the client read {type(event).__name__} where a chunk was expected")

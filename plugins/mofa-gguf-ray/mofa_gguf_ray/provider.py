"""The provider: MoFA's contract on one side, a Ray Serve deployment of engines on the other."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mofa_gguf.contract import (
    ChatCompletionChunk,
    ChatCompletionRequest,
    ChatCompletionResponse,
    ChatMessage,
    EmbeddingRequest,
    EmbeddingResponse,
    LLMError,
    LLMProvider,
    ModelInfo,
    RateLimited,
    Tool,
)
from mofa_gguf.provider.catalog import Catalog
from mofa_gguf_ray.errors import ReplicaLost, ray_missing
from mofa_gguf_ray.prefixes import Prefix, prefixes_of, prefixes_of_text
from mofa_gguf_ray.settings import RayConfig
from mofa_gguf_ray.wire import ReplicaReport, Work

try:
    from mofa_gguf_ray.calls import Patience, pieces_of
    from mofa_gguf_ray.session import Session
except ImportError as error:
    raise ray_missing(error) from error

if TYPE_CHECKING:
    from mofa_gguf.provider.completing import RawPrompt
    from mofa_gguf.provider.description import Health
    from mofa_gguf.provider.reranking import Reranking

log = logging.getLogger(__name__)

_SUSPECT_S = 20.0
"""For how long a replica that fell silent is passed over where there are others."""


class RayProvider(LLMProvider):
    """Local models behind MoFA's contract, on the machines of a Ray cluster.

    The replicas are begun (or joined) by the first request that needs them; :meth:`load` does it
    beforehand. One provider may serve many tasks, threads and event loops. Use it as an async
    context manager, or call :meth:`close`.
    """

    def __init__(self, config: RayConfig) -> None:
        self.config = config
        self._session = Session(config)
        self._catalog = Catalog(config.gguf, lambda name: None)
        self._patience = Patience(config.cluster.start_timeout_s, config.cluster.lost_after_s)
        self._lock = threading.Lock()
        self._n_in_flight = 0
        self._silent: dict[str, float] = {}

    def name(self) -> str:
        """ "gguf-ray"."""
        return "gguf-ray"

    def default_model(self) -> str:
        """The name of the model that requests without one get."""
        return self._catalog.default

    def supported_models(self) -> list[str]:
        """What a request may call a model, the default's names first."""
        return self._catalog.names()

    def supports_tools(self) -> bool:
        """Whether a model's chat template knows tools: as the replicas say once there are any;
        before, as the model's file says where it is on this machine."""
        told = self._session.description
        return told.tools if told else self._catalog.any_can(lambda abilities: abilities.tools)

    def supports_embedding(self) -> bool:
        """Whether texts can be embedded; see :meth:`supports_tools`."""
        told = self._session.description
        if told:
            return told.embedding
        return self._catalog.any_can(lambda abilities: abilities.embedding)

    async def load(self, model: str = "") -> None:
        """Begin or join the replicas now, which load their default model.

        Raises what a first request would.
        """
        self._catalog.chosen(model)
        await self._session.deployment()

    async def chat(self, request: ChatCompletionRequest) -> ChatCompletionResponse:
        """Answer a request whole.

        Raises what :meth:`chat_stream` does. Sent again as often as ``retries_on_loss`` says when
        its replica is lost.
        """
        work = Work("chat", (request,), prefixes=prefixes_of(request))
        with self._counted():
            answer = await self._only(work)
        assert isinstance(answer, ChatCompletionResponse)
        return answer

    async def chat_stream(
        self, request: ChatCompletionRequest
    ) -> AsyncGenerator[ChatCompletionChunk, None]:
        """Answer a request piece by piece. Closing the stream cancels the request on its replica.

        An answer that has begun is never begun again: when its replica is lost then, this raises
        ReplicaLost, a NetworkError. Raises what the provider "gguf" does besides, RateLimited when
        more requests are in flight than the replicas take in, and what beginning the replicas
        raises: ClusterUnreachable (a NetworkError), ConfigError, QuotaExceeded, Timeout, ApiError.
        """
        work = Work("chat_stream", (request,), prefixes=prefixes_of(request))
        with self._counted():
            async with aclosing(self._pieces(work)) as chunks:
                async for chunk in chunks:
                    yield chunk

    async def complete_stream(
        self, prompt: RawPrompt, request: ChatCompletionRequest
    ) -> AsyncGenerator[ChatCompletionChunk, None]:
        """Go on from a bare text, or from token ids, without a template."""
        found: tuple[Prefix, ...] = ()
        if isinstance(prompt, str):
            found = prefixes_of_text(request.model, prompt)
        work = Work("complete_stream", (prompt, request), prefixes=found)
        with self._counted():
            async with aclosing(self._pieces(work)) as chunks:
                async for chunk in chunks:
                    yield chunk

    async def embedding(self, request: EmbeddingRequest) -> EmbeddingResponse:
        """One vector of length 1 for each text; as the provider "gguf"."""
        with self._counted():
            answer = await self._only(Work("embedding", (request,)))
        assert isinstance(answer, EmbeddingResponse)
        return answer

    async def rerank(
        self, query: str, documents: Sequence[str], top_n: int | None = None, *, model: str = ""
    ) -> Reranking:
        """The documents by how well they answer the query; as the provider "gguf"."""
        work = Work("rerank", (query, list(documents), top_n), (("model", model),))
        with self._counted():
            answer: Reranking = await self._only(work)
        return answer

    async def health_check(self) -> bool:
        """Whether a replica answers that its model is loaded or can be."""
        try:
            return (await self.health()).healthy
        except LLMError as error:
            log.warning("%s is not healthy: %s", self.name(), error)
            return False

    async def health(self, model: str = "") -> Health:
        """What was asked for and what one of the replicas got. Raises what :meth:`load` does."""
        answer: Health = await self._only(Work("health", (model,)))
        return answer

    async def get_model_info(self, model: str) -> ModelInfo:
        """Name, limits and capabilities of a model, as one of the replicas has it."""
        answer = await self._only(Work("get_model_info", (model,)))
        assert isinstance(answer, ModelInfo)
        return answer

    async def tokenize(
        self,
        text: str,
        *,
        add_special: bool = False,
        parse_special: bool = False,
        model: str = "",
    ) -> list[int]:
        """Token ids of ``text``; as the provider "gguf"."""
        options = (
            ("add_special", add_special), ("parse_special", parse_special), ("model", model)
        )  # fmt: skip
        answer: list[int] = await self._only(Work("tokenize", (text,), options))
        return answer

    async def count_tokens(
        self,
        messages: Sequence[ChatMessage],
        tools: Sequence[Tool] | None = None,
        *,
        model: str = "",
    ) -> int:
        """How many tokens a request with these messages and tools has before the answer."""
        given = list(tools) if tools is not None else None
        answer: int = await self._only(
            Work("count_tokens", (list(messages), given), (("model", model),))
        )
        return answer

    async def stats(self) -> tuple[ReplicaReport, ...]:
        """What each replica does: where it is, its counts and its speed.

        Raises what :meth:`load` does, and Timeout where a replica does not answer.
        """
        reports = await self._session.reports()
        for report in reports:  # it is not silent any more
            self._silent.pop(report.replica, None)
        return reports

    async def close(self) -> None:
        """End what was begun: requests in flight get Other, the replicas go (unless ``keep``, or
        others began them), and so does a Ray that was started for them. May be called twice."""
        await self._session.close()

    async def _only(self, work: Work) -> Any:
        """The one piece of an answer that comes whole."""
        async with aclosing(self._pieces(work)) as pieces:
            return await anext(pieces)

    async def _pieces(self, work: Work) -> AsyncGenerator[Any, None]:
        """The pieces of an answer, from another replica when one is lost before the first."""
        n_losses = 0
        while True:
            deployment = await self._session.deployment()
            asked = replace(work, avoid=self._silent_now())
            n_given = 0
            try:
                pieces = pieces_of(
                    deployment.handle, asked, self._patience, self._session.open_responses
                )
                async with aclosing(pieces) as given:
                    async for piece in given:
                        n_given += 1
                        yield piece
                return
            except ReplicaLost as loss:
                if loss.replica is not None:
                    self._silent[loss.replica] = time.monotonic() + _SUSPECT_S
                n_losses += 1
                if n_given or n_losses > self.config.cluster.retries_on_loss:
                    raise
                log.warning("%s; asking another", loss.message)

    def _silent_now(self) -> frozenset[str]:
        now_s = time.monotonic()
        for name, until_s in list(self._silent.items()):
            if until_s <= now_s:
                self._silent.pop(name, None)
        return frozenset(self._silent)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        """A request in flight, of those that the replicas take in."""
        limit = self.config.limit
        with self._lock:
            if self._n_in_flight >= limit:
                raise RateLimited(
                    f"{limit} requests are in flight, as many as the replicas take in; try again "
                    "later, or raise replicas or max_queue",
                    limit=limit,
                )
            self._n_in_flight += 1
        try:
            yield
        finally:
            with self._lock:
                self._n_in_flight -= 1

"""Vectors of texts: several in one batch, pooled by llama.cpp."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future

import numpy as np

from mofa_gguf.engine.models.context import RANK, AbortFlag, Context
from mofa_gguf.engine.models.model import Model
from mofa_gguf.engine.options import EngineOptions
from mofa_gguf.engine.planning.context_params import embedding_shape
from mofa_gguf.engine.planning.sizing import shortest_limit
from mofa_gguf.engine.requests.tasks import settle_with

_POOLING_IDS = {"mean": 1, "cls": 2, "last": 3}


def pack(lengths: Sequence[int], *, n_batch: int, n_sequences: int) -> list[range]:
    """Split consecutive inputs into batches of at most ``n_batch`` tokens and ``n_sequences``."""
    batches: list[range] = []
    start, total = 0, 0
    for i, length in enumerate(lengths):
        if i > start and (total + length > n_batch or i - start == n_sequences):
            batches.append(range(start, i))
            start, total = i, 0
        total += length
    if start < len(lengths):
        batches.append(range(start, len(lengths)))
    return batches


class Embedder:
    """Owner of the context that embeds. Used by the engine's thread only.

    With ``ranks`` a text's vector is what the model's classification head says of it. :attr:`n_max`
    is the most tokens of one text.
    """

    def __init__(
        self, model: Model, options: EngineOptions, abort: AbortFlag, *, ranks: bool = False
    ) -> None:
        self._model = model
        pooling = RANK if ranks else _POOLING_IDS[pooling_of(model, options)]
        self.n_max = longest_input(model, options)
        shape = embedding_shape(options, pooling=pooling)
        self._n_sequences = shape.n_sequences
        self._context = Context(model, options, shape, abort=abort)

    def batches(self, inputs: Sequence[Sequence[int]]) -> list[range]:
        """The batches that ``inputs`` are embedded in."""
        return pack(
            [len(tokens) for tokens in inputs],
            n_batch=self._context.n_batch,
            n_sequences=self._n_sequences,
        )

    def embed(self, inputs: Sequence[Sequence[int]], *, normalize: bool) -> list[list[float]]:
        """One vector of ``n_embd`` floats an input, all in one batch.

        Scaled to length 1 with ``normalize``. Raises DecodeFailed.
        """
        self._context.clear()
        self._context.fill(
            [token for tokens in inputs for token in tokens],
            [i for tokens in inputs for i in range(len(tokens))],
            [n for n, tokens in enumerate(inputs) for _ in tokens],
            [True] * sum(map(len, inputs)),
        )
        self._context.run()
        vectors = []
        for sequence in range(len(inputs)):
            vector = self._context.pooled(sequence)
            length = float(np.linalg.norm(vector))
            if normalize and length > 0:
                vector = vector / length
            vectors.append(vector.tolist())
        return vectors

    def close(self) -> None:
        """Free the context; may be called twice."""
        self._context.close()


class EmbeddingTask:
    """Texts to embed, one batch a step, so that running streams wait for one batch at most."""

    def __init__(
        self,
        embedder: Callable[[], Embedder],
        inputs: Sequence[Sequence[int]],
        *,
        normalize: bool,
    ) -> None:
        self.future: Future[list[list[float]]] = Future()
        self._embedder = embedder
        self._inputs = inputs
        self._normalize = normalize
        self._vectors: list[list[float]] = []

    def step(self) -> bool:
        """Embed the next batch; True when the future is settled."""
        if self.future.cancelled():
            return True
        embedder = self._embedder()
        rest = self._inputs[len(self._vectors) :]
        for batch in embedder.batches(rest)[:1]:
            texts = [rest[i] for i in batch]
            self._vectors += embedder.embed(texts, normalize=self._normalize)
        if len(self._vectors) < len(self._inputs):
            return False
        if self.future.set_running_or_notify_cancel():
            self.future.set_result(self._vectors)
        return True

    def fail(self, error: BaseException) -> None:
        """Settle the future with an error."""
        settle_with(self.future, error)


def pooling_of(model: Model, options: EngineOptions) -> str:
    """The pooling that will be used: the option's, else the model's own, else the mean."""
    if options.pooling != "auto":
        return options.pooling
    return model.pooling if model.pooling in _POOLING_IDS else "mean"


def longest_input(model: Model, options: EngineOptions) -> int:
    """Most tokens of one text to embed: what the model was trained for, and a batch holds."""
    limit = shortest_limit(model.header, model.n_ctx_train, options.n_embedding_batch)
    assert limit is not None
    return limit

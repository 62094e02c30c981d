"""Vectors of texts: several in one batch, pooled by llama.cpp."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mofa_gguf.engine.context import AbortFlag, Context
from mofa_gguf.engine.errors import PromptTooLong
from mofa_gguf.engine.model import Model
from mofa_gguf.engine.options import EngineOptions

_POOLING_IDS = {"mean": 1, "cls": 2, "last": 3}
_N_SEQUENCES = 32


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

    :attr:`n_max` is the most tokens of one text.
    """

    def __init__(self, model: Model, options: EngineOptions, abort: AbortFlag) -> None:
        self._model = model
        self.pooling = pooling_of(model, options)
        self.n_max = longest_input(model, options)
        n_batch = max(self.n_max, options.n_embedding_batch)
        self._context = Context(
            model,
            options,
            n_ctx=n_batch,
            n_batch=n_batch,
            n_sequences=_N_SEQUENCES,
            pooling=_POOLING_IDS[self.pooling],
            abort=abort,
        )

    def embed(self, inputs: Sequence[Sequence[int]], *, normalize: bool) -> list[list[float]]:
        """One vector of ``n_embd`` floats an input, scaled to length 1 with ``normalize``.

        Raises PromptTooLong for an input of more than :attr:`n_max` tokens.
        """
        vectors: list[list[float]] = []
        lengths = [len(tokens) for tokens in inputs]
        for n_tokens in lengths:
            if n_tokens > self.n_max:
                raise PromptTooLong(n_tokens, self.n_max, what="one embedding")
        for batch in pack(lengths, n_batch=self._context.n_batch, n_sequences=_N_SEQUENCES):
            vectors += self._run([inputs[i] for i in batch], normalize=normalize)
        return vectors

    def close(self) -> None:
        """Free the context; may be called twice."""
        self._context.close()

    def _run(self, inputs: Sequence[Sequence[int]], *, normalize: bool) -> list[list[float]]:
        tokens = [token for each in inputs for token in each]
        positions = [i for each in inputs for i in range(len(each))]
        sequences = [n for n, each in enumerate(inputs) for _ in each]
        self._context.clear()
        self._context.fill(tokens, positions, sequences, [True] * len(tokens))
        self._context.run()
        vectors = []
        for sequence in range(len(inputs)):
            vector = self._context.pooled(sequence)
            length = float(np.linalg.norm(vector))
            if normalize and length > 0:
                vector = vector / length
            vectors.append(vector.tolist())
        return vectors


def pooling_of(model: Model, options: EngineOptions) -> str:
    """The pooling that will be used: the option's, else the model's own, else the mean."""
    if options.pooling != "auto":
        return options.pooling
    return model.pooling if model.pooling in _POOLING_IDS else "mean"


def longest_input(model: Model, options: EngineOptions) -> int:
    """Most tokens of one text to embed."""
    return min(model.n_ctx_train, options.n_embedding_batch)

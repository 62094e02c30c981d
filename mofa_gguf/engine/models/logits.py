"""What a GGUF file computes for given tokens: for checking files, not for serving requests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

from mofa_gguf.engine.errors import InvalidOption
from mofa_gguf.engine.files.header import GGUFHeader
from mofa_gguf.engine.models.context import Context
from mofa_gguf.engine.models.loading import load_model
from mofa_gguf.engine.models.model import Model
from mofa_gguf.engine.native import apart
from mofa_gguf.engine.options import EngineOptions, LoraAdapter
from mofa_gguf.engine.planning.context_params import reading_shape


class Probe:
    """A model loaded for looking at its outputs. Use as a context manager; one thread at a time.

    ``kv_f32`` keeps keys and values in float32 and computes attention step by step, as a reference
    does. A header that was read already may stand for its file. Raises what loading a model raises
    (ModelFileError and others of engine.errors).
    """

    def __init__(
        self,
        path: Path | str | GGUFHeader,
        *,
        n_gpu_layers: int = 0,
        kv_f32: bool = True,
        n_threads: int | None = None,
        lora: Sequence[LoraAdapter] = (),
    ) -> None:
        self._options = EngineOptions(
            n_gpu_layers=n_gpu_layers,
            n_threads=n_threads,
            flash_attn="off" if kv_f32 else "auto",
            cache_type_k="f32" if kv_f32 else "f16",
            cache_type_v="f32" if kv_f32 else "f16",
            lora=tuple(lora),
            # Pages of the mapped file can be taken back, a copy of the weights cannot.
            repack=False,
            hugepages=False,
            # Its contexts are small, far below what an estimate of these allows for.
            n_embedding_batch=512,
            dry_load=False,
        )
        self.model: Model = load_model(path, self._options, lambda model, _load: model)

    def logits(self, tokens: Sequence[int]) -> npt.NDArray[np.float32]:
        """Logits after every token, shape ``(n_tokens, n_vocab)``.

        The tokens are computed in one batch from an empty cache. Raises InvalidOption for tokens
        outside the vocabulary and DecodeFailed where llama.cpp fails.
        """
        context = self._run(tokens, pooling=None)
        try:
            return np.stack([context.logits(i).copy() for i in range(len(tokens))])
        finally:
            apart(context.close)  # llama.cpp logs: see Context

    def embedding(
        self, tokens: Sequence[int], *, pooling: int | None = None
    ) -> npt.NDArray[np.float32]:
        """The pooled vector of a text's tokens, shape ``(n_embd,)``, not normalized.

        ``pooling`` is a number of ``llama_pooling_type``; by default the file's own, or the mean.
        """
        if pooling is None:
            stored = self.model.header.hyperparameter("pooling_type")
            pooling = stored if isinstance(stored, int) and stored > 0 else _MEAN
        context = self._run(tokens, pooling=pooling)
        try:
            return context.pooled(0)
        finally:
            apart(context.close)  # llama.cpp logs: see Context

    def _run(self, tokens: Sequence[int], *, pooling: int | None) -> Context:
        n_vocab = self.model.vocab.n_tokens
        if not tokens or not all(0 <= token < n_vocab for token in tokens):
            raise InvalidOption("tokens", f"must be one or more ids from 0 to {n_vocab - 1}")
        shape = reading_shape(self._options, len(tokens), pooling=pooling)
        context = Context(self.model, self._options, shape)
        try:
            n_tokens = len(tokens)
            context.fill(tokens, range(n_tokens), [0] * n_tokens, [True] * n_tokens)
            apart(context.run)
        except BaseException:
            apart(context.close)  # llama.cpp logs: see Context
            raise
        return context

    def close(self) -> None:
        """Free the model; may be called twice."""
        self.model.close()

    def __enter__(self) -> Probe:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


_MEAN = 1  # llama.h, LLAMA_POOLING_TYPE_MEAN


def logits_of(
    path: Path | str, tokens: Sequence[int], *, n_gpu_layers: int = 0, kv_f32: bool = True
) -> npt.NDArray[np.float32]:
    """Logits of one text, shape ``(n_tokens, n_vocab)``; see :meth:`Probe.logits`."""
    with Probe(path, n_gpu_layers=n_gpu_layers, kv_f32=kv_f32) as probe:
        return probe.logits(tokens)


def embedding_of(
    path: Path | str, tokens: Sequence[int], *, n_gpu_layers: int = 0
) -> npt.NDArray[np.float32]:
    """Pooled vector of one text, shape ``(n_embd,)``; see :meth:`Probe.embedding`."""
    with Probe(path, n_gpu_layers=n_gpu_layers) as probe:
        return probe.embedding(tokens)

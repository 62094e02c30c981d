"""How the engine sets up llama.cpp's contexts: what loads them and what plans them must agree."""

from __future__ import annotations

from typing import Any, NamedTuple

from mofa_gguf.engine.files.tensor_types import TYPES_BY_NAME
from mofa_gguf.engine.machine.devices import default_threads
from mofa_gguf.engine.native import llama
from mofa_gguf.engine.options import EngineOptions
from mofa_gguf.engine.speculation.limits import MAX_DRAFT_PER_STEP

CELL_STEP = 256
MAX_UBATCH = 512
MAX_PLAIN_UBATCH = 128
"""Plain attention writes all scores of a batch: a quarter of the memory, at the same speed."""
_SPARE_SEQUENCES = 64
"""Sequence ids beyond the running requests', for cached branches."""
_N_EMBEDDING_SEQUENCES = 32
"""Most texts embedded at once."""
_MEAN = 1  # llama.h, LLAMA_POOLING_TYPE_MEAN
_FLASH_ATTENTION = {"auto": -1, "off": 0, "on": 1}


class ContextShape(NamedTuple):
    """The sizes of one context."""

    n_ctx: int
    n_batch: int
    n_sequences: int
    pooling: int | None = None
    """llama.cpp's number of a pooling, for a context that embeds."""
    max_ubatch: int = MAX_UBATCH
    n_outputs: int = 0
    """Most tokens of a batch that have outputs; 0: all. llama.cpp keeps room for their logits."""

    @property
    def n_ubatch(self) -> int:
        """Tokens computed at once: texts to embed must go in whole."""
        return self.n_batch if self.pooling is not None else min(self.n_batch, self.max_ubatch)


def max_ubatch(options: EngineOptions) -> int:
    """Most tokens that a context computes at once."""
    return MAX_PLAIN_UBATCH if options.flash_attn == "off" else MAX_UBATCH


def generation_shape(options: EngineOptions, *, n_ctx: int, shares: bool) -> ContextShape:
    """The context that generates.

    ``shares``: whether sequences can share cells, so that more than the running ones are worth
    having.
    """
    most: int = llama().llama_max_parallel_sequences()
    n_parallel = min(options.max_parallel, most)
    n_sequences = min(most if shares else n_parallel, n_parallel + _SPARE_SEQUENCES)
    return ContextShape(
        # Whole steps, as llama.cpp would round: never fewer cells than sequences.
        n_ctx=-(-n_ctx // CELL_STEP) * CELL_STEP,
        # llama.cpp wants room for one output of every sequence in a batch.
        n_batch=max(n_sequences, min(options.n_batch, n_ctx)),
        n_sequences=n_sequences,
        max_ubatch=max_ubatch(options),
        # The tokens that each running request waits for; for every sequence one at least.
        n_outputs=max(n_sequences, n_parallel + MAX_DRAFT_PER_STEP),
    )


def embedding_shape(options: EngineOptions, *, pooling: int = _MEAN) -> ContextShape:
    """The context that embeds, or judges texts. What it takes does not depend on the pooling."""
    n_batch = options.n_embedding_batch
    # llama.cpp ends the process where a batch cannot hold a token of every sequence.
    return ContextShape(n_batch, n_batch, min(_N_EMBEDDING_SEQUENCES, n_batch), pooling)


def reading_shape(
    options: EngineOptions, n_tokens: int, *, pooling: int | None = None
) -> ContextShape:
    """The context that reads one text, and has an output for each token where it pools nothing."""
    return ContextShape(n_tokens, n_tokens, 1, pooling, max_ubatch(options))


def context_params(options: EngineOptions, shape: ContextShape) -> Any:
    """llama.cpp's ``llama_context_params``."""
    params = llama().llama_context_default_params()
    params.n_ctx = shape.n_ctx
    params.n_batch = shape.n_batch
    params.n_ubatch = shape.n_ubatch
    params.n_seq_max = shape.n_sequences
    params.n_outputs_max = min(shape.n_outputs, shape.n_batch)
    params.n_threads = options.n_threads or default_threads()
    params.n_threads_batch = options.n_threads_batch or params.n_threads
    params.flash_attn_type = _FLASH_ATTENTION[options.flash_attn]
    params.type_k = TYPES_BY_NAME[options.cache_type_k.upper()].id
    params.type_v = TYPES_BY_NAME[options.cache_type_v.upper()].id
    params.kv_unified = True
    # Sliding-window layers keep all cells, so that prefixes can be shared and dropped.
    params.swa_full = True
    params.no_perf = True
    if shape.pooling is not None:
        params.embeddings = True
        params.pooling_type = shape.pooling
    return params

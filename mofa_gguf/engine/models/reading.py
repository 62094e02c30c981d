"""A text read by a model in chunks, for what flows through its matrices meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mofa_gguf.engine.errors import InvalidOption
from mofa_gguf.engine.models.activations import Collector, ColumnSums
from mofa_gguf.engine.models.context import Context
from mofa_gguf.engine.models.loading import load_model
from mofa_gguf.engine.models.model import Model, refuse_encoder_decoder
from mofa_gguf.engine.native import apart
from mofa_gguf.engine.options import EngineOptions
from mofa_gguf.engine.planning.context_params import reading_shape

_MEAN = 1  # llama.h, LLAMA_POOLING_TYPE_MEAN


@dataclass(frozen=True)
class Reading:
    """What was gathered over ``n_chunks`` pieces of ``chunk_size`` tokens each."""

    columns: Mapping[str, ColumnSums]
    n_chunks: int
    chunk_size: int


def read_in_chunks(
    path: Path | str,
    text: str,
    *,
    chunk_size: int,
    max_chunks: int | None = None,
    with_output: bool = False,
    n_threads: int | None = None,
    observe: Callable[[int, int], None] = lambda done, total: None,
) -> Reading:
    """Let the model at ``path`` read ``text``, and gather :class:`ColumnSums` of its matrices.

    Each chunk is read by itself; where the model wants a token before a text, that takes the place
    of the chunk's first. What is left over at the end is not read. ``observe`` is called with the
    number of chunks that are done and that there are. Raises InvalidOption for a text of less than
    one chunk, EngineError for values that are not finite, and what loading and computing raise.
    """
    options = EngineOptions(n_ctx=chunk_size, n_threads=n_threads, max_parallel=1)
    model = load_model(path, options, lambda model, _load: model)
    try:
        refuse_encoder_decoder(model)
        if chunk_size > model.n_ctx_train:
            raise InvalidOption(
                "chunk_size", f"is {chunk_size}, but the model reads {model.n_ctx_train} at most"
            )
        tokens = model.vocab.tokenize(text, add_special=True)
        n_chunks = len(tokens) // chunk_size
        if max_chunks is not None:
            n_chunks = min(n_chunks, max_chunks)
        if not n_chunks:
            raise InvalidOption(
                "chunk_size",
                f"is {chunk_size}, but the text has only {len(tokens)} tokens; give a longer text "
                "or a smaller size (--chunk-size)",
            )
        collector = Collector(with_output=with_output)
        context = _context(model, options, chunk_size, collector)
        try:
            for number in range(n_chunks):
                observe(number, n_chunks)
                begin = number * chunk_size
                _read(context, model, tokens[begin : begin + chunk_size])
                collector.check()
        finally:
            context.close()
        observe(n_chunks, n_chunks)
        return Reading(collector.found, n_chunks, chunk_size)
    finally:
        model.close()


def _context(model: Model, options: EngineOptions, size: int, collector: Collector) -> Context:
    pooling = _MEAN if model.is_encoder else None
    shape = reading_shape(options, size, pooling=pooling)
    return Context(model, options, shape, on_node=collector.callback)


def _read(context: Context, model: Model, tokens: list[int]) -> None:
    vocab, n = model.vocab, len(tokens)
    if vocab.add_bos and vocab.bos is not None:
        tokens = [vocab.bos, *tokens[1:]]
    context.clear()
    context.fill(tokens, range(n), [0] * n, [True] * n)
    apart(context.run)

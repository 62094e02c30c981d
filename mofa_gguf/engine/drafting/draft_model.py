"""A draft model beside its target: loading it, what it must have in common, its decodes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from mofa_gguf.engine.cache.radix import PrefixCache
from mofa_gguf.engine.drafting.drafter import Drafter
from mofa_gguf.engine.drafting.drafts import Feed, Likely
from mofa_gguf.engine.errors import InvalidOption
from mofa_gguf.engine.models.context import AbortFlag, Context
from mofa_gguf.engine.models.loading import load_model
from mofa_gguf.engine.models.model import Model, can_share
from mofa_gguf.engine.options import EngineOptions
from mofa_gguf.engine.planning.context_params import generation_shape
from mofa_gguf.engine.planning.load_plan import LoadPlan
from mofa_gguf.engine.planning.whole import draft_options
from mofa_gguf.engine.tokens.vocab import Vocab

FIELD = "draft_model"
MAX_PADDING = 128
"""How many ids one vocabulary may have beyond the other: sizes are rounded up differently."""


def load_drafter(
    model: Model,
    options: EngineOptions,
    *,
    n_ctx: int,
    abort: AbortFlag,
    progress: Callable[[float], None] | None = None,
) -> Drafter:
    """Load ``options.draft_model`` for ``model``, whose cache has ``n_ctx`` cells; blocks.

    Raises InvalidOption where the two do not go together, and what loading a model raises.
    """
    assert options.draft_model is not None

    def build(draft: Model, load: LoadPlan) -> Drafter:
        check_pair(model, draft)
        return _make(model, draft, load, abort)

    return load_model(
        options.draft_model, draft_options(options, n_ctx=n_ctx), build, progress=progress
    )


def check_target(model: Model) -> None:
    """Raises InvalidOption unless tokens can be guessed for (or by) this model."""
    if model.only_embeds or not can_share(model):
        raise InvalidOption(
            FIELD,
            f"cannot be used with {model.path.name}: guesses need a memory that can drop single "
            "tokens, and this model has none; leave draft_model out, or use another one",
        )


def check_pair(target: Model, draft: Model) -> None:
    """Raises InvalidOption unless ``draft`` can guess for ``target``."""
    check_target(target)
    check_target(draft)
    problem = vocabulary_difference(target.vocab, draft.vocab)
    if problem is not None:
        raise InvalidOption(
            FIELD,
            f"{draft.path.name} cannot guess for {target.path.name}: {problem}; use a draft model "
            "with the same vocabulary",
        )


def vocabulary_difference(target: Vocab, draft: Vocab) -> str | None:
    """In what two vocabularies differ, in words; None where a token means the same in both."""
    if abs(target.n_tokens - draft.n_tokens) > MAX_PADDING:
        return f"they have {draft.n_tokens} and {target.n_tokens} tokens"
    for name in ("bos", "eos"):
        ours, theirs = getattr(target, name), getattr(draft, name)
        if ours != theirs:
            return f"their {name} tokens are {theirs} and {ours}"
    for token in range(min(target.n_tokens, draft.n_tokens)):
        if target.text(token) != draft.text(token):
            return f"token {token} is {draft.text(token)!r} in one and {target.text(token)!r}"
    return None


class ContextDecoder:
    """Computes in a context of the draft model. Owner of both."""

    def __init__(self, model: Model, context: Context, *, n_tokens: int) -> None:
        self.n_batch = context.n_batch
        self.n_tokens = n_tokens
        self._model = model
        self._context = context

    def decode(self, feeds: Sequence[Feed], *, wanted: bool) -> Sequence[Likely]:
        """See :class:`~mofa_gguf.engine.drafting.drafts.Decoder`."""
        tokens: list[int] = []
        positions: list[int] = []
        sequences: list[int] = []
        outputs: list[bool] = []
        for feed in feeds:
            n_tokens = len(feed.tokens)
            tokens += feed.tokens
            positions += range(feed.start, feed.start + n_tokens)
            sequences += [feed.sequence] * n_tokens
            outputs += [False] * (n_tokens - 1) + [wanted]
        self._context.fill(tokens, positions, sequences, outputs)
        self._context.run()
        if not wanted:
            return ()
        return [self._likely(i) for i, output in enumerate(outputs) if output]

    def _likely(self, index: int) -> Likely:
        logits = self._context.logits(index)[: self.n_tokens]
        token = int(np.argmax(logits))
        return Likely(token, float(1 / np.exp(logits - logits[token]).sum()))

    def clear(self) -> None:
        """Empty the context's cache."""
        self._context.clear()

    def close(self) -> None:
        """Free context and model; may be called twice."""
        self._context.close()
        self._model.close()


def _make(target: Model, draft: Model, load: LoadPlan, abort: AbortFlag) -> Drafter:
    options = load.options
    shape = generation_shape(options, n_ctx=load.plan.n_ctx, shares=True)
    context = Context(draft, options, shape, abort=abort)
    cache = PrefixCache(context, n_cells=context.n_ctx, n_sequences=shape.n_sequences)
    n_tokens = min(target.vocab.n_tokens, draft.vocab.n_tokens)
    return Drafter(
        ContextDecoder(draft, context, n_tokens=n_tokens),
        cache,
        n_ctx=min(context.n_ctx, draft.n_ctx_train),
        end_ids=target.eog_ids,
        stopping=lambda: abort.is_set,
    )

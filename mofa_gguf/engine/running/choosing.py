"""A request's next token, from the logits of a batch that was computed."""

from __future__ import annotations

import math
import time

from mofa_gguf.engine.models.context import Context
from mofa_gguf.engine.models.model import Model
from mofa_gguf.engine.requests.logprobs import chosen_logprob
from mofa_gguf.engine.requests.sequence import Sequence as Request
from mofa_gguf.engine.running.recorder import Recorder


class Chooser:
    """Chooses tokens and hands them to their requests. Used by the engine's thread only.

    ``n_ctx``: tokens that one request may have.
    """

    def __init__(self, model: Model, context: Context, recorder: Recorder, *, n_ctx: int) -> None:
        self._vocab = model.vocab
        self._eog_ids = sorted(model.eog_ids)
        self._context = context
        self._recorder = recorder
        self._counters = recorder.counters
        self._n_ctx = n_ctx

    def choose(self, request: Request, index: int) -> None:
        """The next token of ``request``, from the logits of the batch's token ``index``.

        Raises ConstraintError.
        """
        asked, logprob = request.request, None
        logits = self._context.logits(index)
        n_top = asked.top_logprobs
        before = logits.copy() if n_top is not None else None
        if asked.ignore_eos or request.n_generated < asked.min_tokens:
            for token in self._eog_ids:  # few: faster than an index of all
                logits[token] = -math.inf
        if request.constraint is not None:
            request.constraint.mask(logits)
        token = request.sampler.sample(self._context.handle, index, logits)
        if before is not None and n_top is not None:
            logprob = chosen_logprob(before, token, n_top, self._vocab)
        request.accept(token, logprob=logprob, n_ctx=self._n_ctx)
        self._counters.n_generated_tokens += 1
        now = time.monotonic()
        if request.last_token_s is not None:
            self._recorder.gap(now - request.last_token_s)
        request.last_token_s = now

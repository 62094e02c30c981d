"""The steps of a request that is alone: as little Python as can be between two decodes.

A decode drives everything else out of the processor's caches, so that each line of Python behind
it is slow. A step that asks the scheduler, the prefix cache and the readers of guesses takes 0.4 ms
beside a decode of 10 ms; this one takes half of that and does the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from mofa_gguf.engine.cache.radix import PrefixCache
from mofa_gguf.engine.drafting.wishes import Drafting
from mofa_gguf.engine.models.context import Context
from mofa_gguf.engine.requests.sequence import Sequence as Request
from mofa_gguf.engine.running.choosing import Chooser
from mofa_gguf.engine.running.recorder import Counters


class Solo:
    """Goes on with the one request that runs. Used by the engine's thread only."""

    def __init__(
        self,
        context: Context,
        cache: PrefixCache,
        chooser: Chooser,
        drafting: Drafting,
        counters: Counters,
    ) -> None:
        self._context = context
        self._cache = cache
        self._chooser = chooser
        self._drafting = drafting
        self._counters = counters

    def can_go_on(self, request: Request) -> bool:
        """Whether the request's own next token is all that is to be computed, as far as is known.

        A draft model is asked by the scheduler's steps only: asking it takes a decode of its own.
        """
        runs_on = request.lease is not None and request.started and request.n_todo == 1
        return runs_on and self._drafting.drafter is None

    def go_on(self, request: Request, n_most: int, interrupted: Callable[[], bool]) -> None:
        """Compute up to ``n_most`` tokens; fewer where the answer ends or something else is to do.

        Raises DecodeFailed, and EngineError for what the request itself does.
        """
        context, drafting, out, tokens = self._context, self._drafting, request.out, request.tokens
        choose, lease = self._chooser.choose, request.lease
        assert lease is not None
        guesses = self._cache.shares and drafting.mode_of(request) != "off"
        expires = request.request.deadline_s is not None
        first = position = lease.n_tokens
        end = first + min(n_most, self._cache.n_free)
        context.fill([tokens[-1]], [first], [lease.sequence], [True])
        try:
            while position < end and not out.cancelled and not interrupted():
                if expires and request.late:
                    break
                # Asking twice is as asking once: the next step finds these guesses again.
                if guesses and drafting([request], context.n_batch - 1)[0]:
                    break
                began = time.monotonic() if guesses else 0.0
                context.put(tokens[-1], position)
                context.run()
                position += 1
                if guesses:
                    drafting.note(1, time.monotonic() - began)
                choose(request, 0)
                if request.finished or len(tokens) != position + 1:
                    break
        finally:  # what was computed, however it ended
            self._counters.n_steps += position - first
            self._cache.extend(lease, tokens[first:position])

"""One request while it waits and runs: what it has, what it has said, when it is over."""

from __future__ import annotations

import time
from collections.abc import Sequence as Tokens

from mofa_gguf.engine.models.model import Model
from mofa_gguf.engine.requests.generation import Outbox
from mofa_gguf.engine.requests.request import (
    ChosenLogprob,
    FinishEvent,
    FinishReason,
    GenerationRequest,
    TextEvent,
    Timings,
)
from mofa_gguf.engine.requests.sampling import Sampler
from mofa_gguf.engine.scheduling.scheduler import Task
from mofa_gguf.engine.speculation.policy import NO_GUESS, Guess, Guesser
from mofa_gguf.engine.tokens.text import TextStream


class Sequence(Task):
    """A task with its sampler, its text and its reader. Owns the sampler."""

    def __init__(
        self, model: Model, request: GenerationRequest, out: Outbox, submitted_s: float
    ) -> None:
        super().__init__(list(request.tokens), priority=request.priority)
        self.request = request
        self.out = out
        self.submitted_s = submitted_s
        self.finished = False
        self.end: FinishEvent | None = None
        self.constraint = request.constraint() if request.constraint is not None else None
        self.sampler = Sampler(request.sampling, model.vocab, prompt=self.tokens)
        self._model = model
        self._text = TextStream(request.stop)
        self._started_s: float | None = None
        self._first_token_s: float | None = None
        self.last_token_s: float | None = None
        """When its latest token was chosen."""
        self._unsent: list[int] = []
        self._logprobs: list[ChosenLogprob] = []
        self._guesser = Guesser()
        self._guessed: list[int] = []
        self._guessed_from = 0
        self._n_right = 0
        self.n_drafted_tokens = 0
        self.n_accepted_tokens = 0

    @property
    def n_generated(self) -> int:
        """Tokens of the answer so far."""
        return len(self.tokens) - self.n_prompt

    @property
    def late(self) -> bool:
        """Whether the request's time is over."""
        deadline_s = self.request.deadline_s
        return deadline_s is not None and time.monotonic() - self.submitted_s > deadline_s

    def begin(self) -> None:
        """Note that its first tokens are about to be computed."""
        if self._started_s is None:
            self._started_s = time.monotonic()

    def n_ahead(self, n_ctx: int) -> int:
        """Most tokens that may come behind the next one, as far as the answer can go."""
        limits = [n_ctx - len(self.tokens) - 1]
        if self.request.max_tokens is not None:
            limits.append(self.request.max_tokens - self.n_generated - 1)
        return max(0, min(limits))

    def guess(self, *, n_ctx: int) -> Guess:
        """What may follow, no further than the answer can go."""
        n_max = self.n_ahead(n_ctx)
        return self._guesser.guess(self.tokens, n_max) if n_max > 0 else NO_GUESS

    def expect(self, guessed: Tokens[int]) -> None:
        """Note that these tokens were computed behind the last one."""
        self._guessed, self._guessed_from, self._n_right = list(guessed), len(self.tokens), 0
        self.n_drafted_tokens += len(guessed)

    @property
    def as_guessed(self) -> bool:
        """Whether all tokens since :meth:`expect` were computed with it."""
        return len(self.tokens) == self._guessed_from + self._n_right

    def accept(self, token: int, *, logprob: ChosenLogprob | None = None, n_ctx: int) -> None:
        """Take the chosen token into the answer; ends it where the token, or a limit, does."""
        if self._first_token_s is None:
            self._first_token_s = time.monotonic()
        if token in self._model.eog_ids:
            self.finish("stop")  # the end marker is no part of the answer
            return
        if self.constraint is None:
            self._append(token, n_ctx=n_ctx, logprob=logprob)
            return
        for each in self.constraint.fitted(token):  # which may be only the token's beginning
            if each != token:
                self.sampler.accept(each)
            self._append(each, n_ctx=n_ctx, logprob=logprob)
            logprob = None
            if self.finished:
                return
        # What the constraint leaves no choice about is not sampled; with log-probabilities asked
        # for it is, since each token needs its own.
        if self.request.top_logprobs is not None:
            return
        for forced in self.constraint.forced():
            self.sampler.accept(forced)
            self._append(forced, n_ctx=n_ctx)
            if self.finished:
                return

    def _append(self, token: int, *, n_ctx: int, logprob: ChosenLogprob | None = None) -> None:
        if self._guessed and self.as_guessed and token in self._guessed[self._n_right :][:1]:
            self._n_right += 1
            self.n_accepted_tokens += 1
        tokens, constraint = self.tokens, self.constraint
        tokens.append(token)
        self._unsent.append(token)
        if logprob is not None:
            self._logprobs.append(logprob)
        text = self._text.feed(self._bytes_of(token))
        if text:
            self._say(text)
        if constraint is not None:
            constraint.accept(token)
        if self._text.stopped_by is not None or (constraint is not None and constraint.stopped):
            self.finish("stop")
        elif len(tokens) - self.n_prompt == self.request.max_tokens or len(tokens) >= n_ctx:
            self.finish("length")

    def finish(self, reason: FinishReason) -> None:
        """End the answer: what was held back, then the last event."""
        self._say(self._text.finish(), last=True)
        self.finished = True
        now = time.monotonic()
        started = self._started_s if self._started_s is not None else now
        first = self._first_token_s if self._first_token_s is not None else now
        self.end = FinishEvent(
            reason=reason,
            n_prompt_tokens=self.n_prompt,
            n_cached_tokens=self.n_cached,
            n_generated_tokens=self.n_generated,
            timings=Timings(
                queue_s=started - self.submitted_s,
                prefill_s=first - started,
                decode_s=now - first,
            ),
            seed=self.sampler.seed,
            stop_string=self._text.stopped_by,
            n_drafted_tokens=self.n_drafted_tokens,
            n_accepted_tokens=self.n_accepted_tokens,
        )
        self.out.push(self.end)

    def fail(self, error: BaseException) -> None:
        """End the request with an error."""
        self.finished = True
        self.out.push(error)

    def close(self) -> None:
        """Free the sampler; may be called twice."""
        self.sampler.close()

    def _bytes_of(self, token: int) -> bytes:
        """A token's text; control tokens have none, but for those the request wants to see."""
        vocab = self._model.vocab
        piece = vocab.piece(token)
        if piece or not self.request.visible_control:
            return piece
        hidden = vocab.piece(token, special=True)
        text = hidden.decode("utf-8", errors="replace")
        return hidden if text in self.request.visible_control else b""

    def _say(self, text: str, *, last: bool = False) -> None:
        if not text and not (last and self._unsent):
            return
        self.out.push(TextEvent(text, tuple(self._unsent), tuple(self._logprobs)))
        self._unsent, self._logprobs = [], []

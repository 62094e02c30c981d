"""One request while it runs: what it has, what it has said, when it is over."""

from __future__ import annotations

import time

from mofa_gguf.engine.generation import Generation
from mofa_gguf.engine.model import Model
from mofa_gguf.engine.request import (
    ChosenLogprob,
    FinishEvent,
    FinishReason,
    GenerationRequest,
    TextEvent,
    Timings,
)
from mofa_gguf.engine.sampling import Sampler
from mofa_gguf.engine.text import TextStream


class Sequence:
    """State of one running request; owns its sampler."""

    def __init__(
        self, model: Model, request: GenerationRequest, out: Generation, submitted_s: float
    ) -> None:
        self.request = request
        self.prompt = list(request.tokens)
        self.out = out
        self.submitted_s = submitted_s
        self.n_cached = 0
        self.n_generated = 0
        self.finished = False
        self.constraint = request.constraint() if request.constraint is not None else None
        self.sampler = Sampler(request.sampling, model.vocab, prompt=self.prompt)
        self._model = model
        self._text = TextStream(request.stop)
        self._started_s = time.monotonic()
        self._prefilled_s = self._started_s
        self._pending: list[int] = []
        self._unsent: list[int] = []
        self._logprobs: list[ChosenLogprob] = []

    def prefilled(self) -> None:
        """Note that the prompt is computed."""
        self._prefilled_s = time.monotonic()

    def note_logprob(self, logprob: ChosenLogprob) -> None:
        """Keep the log-probability of the token that is about to be accepted."""
        self._logprobs.append(logprob)

    def accept(self, token: int, *, room: int) -> bool:
        """Take the chosen token into the answer; True when the answer is over.

        ``room``: tokens that the context still holds.
        """
        if token in self._model.eog_ids:
            # The end marker is no part of the answer, nor is its log-probability.
            self._logprobs = self._logprobs[: len(self._unsent)]
            self.finish("stop")
            return True
        self.n_generated += 1
        self._unsent.append(token)
        self._pending.append(token)
        self._say(self._text.feed(self._model.vocab.piece(token, special=True)))
        if self.constraint is not None:
            self.constraint.accept(token)
        if self._text.stopped_by is not None or (self.constraint and self.constraint.stopped):
            self.finish("stop")
        elif self.n_generated == self.request.max_tokens or room <= 1:
            self.finish("length")
        return self.finished

    def take_pending(self) -> list[int]:
        """Accepted tokens that are not in the KV cache yet."""
        pending, self._pending = self._pending, []
        return pending

    def finish(self, reason: FinishReason) -> None:
        """End the answer: what was held back, then the last event."""
        self._say(self._text.finish(), last=True)
        self.finished = True
        now = time.monotonic()
        self.out.push(
            FinishEvent(
                reason=reason,
                n_prompt_tokens=len(self.prompt),
                n_cached_tokens=self.n_cached,
                n_generated_tokens=self.n_generated,
                timings=Timings(
                    queue_s=self._started_s - self.submitted_s,
                    prefill_s=self._prefilled_s - self._started_s,
                    decode_s=now - self._prefilled_s,
                ),
                seed=self.sampler.seed,
                stop_string=self._text.stopped_by,
            )
        )

    def close(self) -> None:
        """Free the sampler; may be called twice."""
        self.sampler.close()

    def _say(self, text: str, *, last: bool = False) -> None:
        if not text and not (last and self._unsent):
            return
        self.out.push(TextEvent(text, tuple(self._unsent), tuple(self._logprobs)))
        self._unsent, self._logprobs = [], []

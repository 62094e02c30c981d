"""Which guesses a step takes in: the requests' wishes, the measured cost, one budget."""

from __future__ import annotations

from collections.abc import Sequence as Tokens

from mofa_gguf.engine.drafting.drafter import Drafter
from mofa_gguf.engine.drafting.drafts import Wish
from mofa_gguf.engine.options import Speculation
from mofa_gguf.engine.requests.sequence import Sequence
from mofa_gguf.engine.scheduling.scheduler import Task
from mofa_gguf.engine.speculation.limits import MAX_DRAFT_PER_STEP
from mofa_gguf.engine.speculation.policy import NO_GUESS, Guess, StepCost, share


class Drafting:
    """One engine's choice of guesses. Used by the engine's thread only."""

    def __init__(self, mode: Speculation, *, n_ctx: int) -> None:
        self.cost = StepCost()
        self.drafter: Drafter | None = None
        """A second model's guesses, for those that say nothing again."""
        self._mode = mode
        self._wanted = mode != "off"
        self._n_ctx = n_ctx

    def __call__(self, tasks: Tokens[Task], budget: int) -> Tokens[Tokens[int]]:
        """For each task the tokens to compute behind its next one, ``budget`` in all."""
        if all(self.mode_of(task) == "off" for task in tasks):
            return [()] * len(tasks)
        self._wanted = True
        budget = min(budget, MAX_DRAFT_PER_STEP)
        found = self._repeated(tasks, budget)
        if self.drafter is not None:
            n_decoding = len(tasks) + sum(map(len, found))
            drafted = self._drafted(self.drafter, tasks, found, n_decoding, budget)
            found = [mine or more for mine, more in zip(found, drafted, strict=True)]
        return found

    @property
    def n_draft_steps(self) -> int:
        """Decodes of the draft model."""
        return self.drafter.n_steps if self.drafter is not None else 0

    def note(self, n_tokens: int, seconds: float) -> None:
        """A step of ``n_tokens`` took ``seconds``. Costs nothing until somebody wants guesses."""
        if not self._wanted:
            return
        self.cost.note(n_tokens, seconds)
        if self.drafter is not None:
            self.drafter.account.earn(seconds)

    def release(self, task: Task) -> None:
        """A task is over."""
        if self.drafter is not None:
            self.drafter.release(task)

    def start_over(self) -> None:
        """After a failure that nobody foresaw: forget every task."""
        if self.drafter is not None:
            self.drafter.start_over()

    def close(self) -> None:
        """Free the draft model; may be called twice."""
        if self.drafter is not None:
            self.drafter.close()

    def _repeated(self, tasks: Tokens[Task], budget: int) -> list[Tokens[int]]:
        """What followed earlier in each text."""
        counts = [0] * len(tasks)
        guesses = [self._guess(task) for task in tasks]
        asked = [i for i, task in enumerate(tasks) if self.mode_of(task) == "prompt-lookup"]
        for i in asked:
            counts[i] = min(len(guesses[i].tokens), budget // len(asked))
        open_ones = [() if i in asked else guess.chances for i, guess in enumerate(guesses)]
        shared = share(
            open_ones,
            n_decoding=len(tasks) + sum(counts),
            budget=budget - sum(counts),
            seconds=self.cost.seconds,
        )
        return [
            guess.tokens[: count + more]
            for guess, count, more in zip(guesses, counts, shared, strict=True)
        ]

    def _drafted(
        self,
        drafter: Drafter,
        tasks: Tokens[Task],
        found: Tokens[Tokens[int]],
        n_decoding: int,
        budget: int,
    ) -> list[Tokens[int]]:
        """What the draft model says where nothing was ``found``, as far as checking it pays."""
        drafter.keep_only(tasks)
        budget -= n_decoding - len(tasks)
        modes = [self.mode_of(task) for task in tasks]
        open_ones = [
            i
            for i, mode in enumerate(modes)
            if mode == "draft-model" or (mode == "auto" and not found[i])
        ]
        wishes = [self._wish(tasks[i], forced=modes[i] == "draft-model") for i in open_ones]
        drafts = drafter.guess(
            wishes, n_decoding=n_decoding, budget=budget, seconds=self.cost.seconds
        )
        n_whole = sum(len(draft.tokens) for draft in drafts if draft.whole)
        counts = share(
            [() if draft.whole else draft.chances for draft in drafts],
            n_decoding=n_decoding + n_whole,
            budget=budget - n_whole,
            seconds=self.cost.seconds,
        )
        taken: list[Tokens[int]] = [()] * len(tasks)
        for i, draft, count in zip(open_ones, drafts, counts, strict=True):
            taken[i] = draft.tokens if draft.whole else draft.tokens[:count]
        return taken

    def mode_of(self, task: Task) -> Speculation:
        """What applies to a task: its own wish, else the engine's setting.

        A step's arithmetic rounds differently with its width. A request with a seed asks for the
        same text every time, so it is not left to what happens to pay.
        """
        assert isinstance(task, Sequence)
        mode = task.request.speculation or self._mode
        seeded = task.request.sampling.seed is not None
        return "off" if mode == "auto" and seeded else mode

    def _wish(self, task: Task, *, forced: bool) -> Wish:
        assert isinstance(task, Sequence)
        return Wish(task, task.n_ahead(self._n_ctx), forced)

    def _guess(self, task: Task) -> Guess:
        assert isinstance(task, Sequence)
        repeats = self.mode_of(task) in ("auto", "prompt-lookup")
        return task.guess(n_ctx=self._n_ctx) if repeats else NO_GUESS

"""An answer in stages: reasoning, free text, calls under a grammar, or one form from the start.

Not everything in an answer has a grammar. A model thinks freely and then answers in JSON; it talks
freely until it begins a tool call, which then has to be a valid one. :class:`StagedConstraint`
follows the answer's bytes, notices where reasoning begins and ends and where a call begins, and
has the grammar of the stage enforced. What the texts are, it is told by an :class:`AnswerPlan`.

    start ──> reasoning ──> free text <──> call        (a plan without ``main``)
      │           └───────> main                       (a plan with ``main``)
      └───────────────────────^

Where one token holds the end of a mark and something behind it that the next stage does not allow
(``>{`` where a line break must follow the ``>``), the answer goes on with tokens for the fitting
part instead: see :meth:`StagedConstraint.fitted`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from mofa_gguf.engine.structure.answer_plan import AnswerPlan, Reasoning, Trigger
from mofa_gguf.engine.structure.constraint import Constraint
from mofa_gguf.engine.structure.triggers import WHITESPACE, TriggerFinder

Stage = Literal["start", "reasoning", "free", "call", "main", "over"]


class Spelling(Protocol):
    """Tokens as bytes, and bytes as tokens."""

    def piece(self, token: int) -> bytes:
        """The bytes that a token stands for, control tokens included."""

    def spelled(self, data: bytes) -> list[int]:
        """Tokens that stand for these bytes."""


class StagedConstraint:
    """Follows one answer through the stages of its plan. For one thread at a time.

    ``eos`` are the ids that end a generation: an answer that must have a certain form cannot end
    within its reasoning.
    """

    def __init__(self, plan: AnswerPlan, spelling: Spelling, *, eos: Sequence[int]) -> None:
        self._plan = plan
        self._spelling = spelling
        self._eos = list(eos)
        self._stage: Stage = "start"
        self._matcher: Constraint | None = None
        self._reasoning: Reasoning | None = None
        self._n_reasoning = 0
        self._pending: list[int] = []
        self._tail = b""
        self._fresh = True  # nothing but white space came since the answer proper began
        self._triggers = TriggerFinder(plan.triggers)
        if plan.opened is not None:
            self._begin_reasoning(plan.opened)
        elif plan.reasoning and (plan.main is None or plan.opening_main is not None):
            self._matcher = plan.opening_main() if plan.opening_main is not None else None
        else:
            self._begin_answer(b"", resumed=False)

    @property
    def stage(self) -> Stage:
        """Where the answer is."""
        return self._stage

    @property
    def stopped(self) -> bool:
        """Whether the answer is complete: nothing may follow."""
        if self._stage == "over":
            return True
        in_main = self._stage in ("main", "start") and self._matcher is not None
        return in_main and self._matcher is not None and self._matcher.stopped

    @property
    def may_stop(self) -> bool:
        """Whether the answer may end here."""
        if self._pending or (self._stage == "reasoning" and self._plan.main is not None):
            return False
        return self._matcher is None or self._matcher.may_stop

    def mask(self, logits: NDArray[np.float32]) -> None:
        """Set the logits of all tokens that may not come next to minus infinity, in place."""
        if self._pending:
            kept = logits[self._pending[0]]
            logits[:] = -np.inf
            logits[self._pending[0]] = kept if np.isfinite(kept) else 0.0
        elif self._matcher is not None:
            if not self._is_optional:
                self._matcher.mask(logits)
        elif self._stage == "reasoning" and self._plan.main is not None:
            logits[self._eos] = -np.inf

    def fitted(self, token: int) -> Sequence[int]:
        """The tokens to go on with when this one was chosen: itself, or those for its beginning.

        Only a token that ends a mark and goes on in a way that the next stage does not allow is
        replaced.
        """
        if self._pending or (self._matcher is not None and not self._releases(token)):
            return (token,)
        piece = self._spelling.piece(token)
        found = self._next_stage(piece)
        if found is None:
            return (token,)
        behind, begin = found
        if not behind or begin is None:
            return (token,)
        stage = begin()
        for n_cut in range(min(len(behind), len(piece))):
            if self._takes(stage, behind[: len(behind) - n_cut]):
                break
        else:
            n_cut = min(len(behind), len(piece))
        if not n_cut:
            return (token,)
        return self._spelling.spelled(piece[: len(piece) - n_cut]) or (token,)

    def accept(self, token: int) -> None:
        """The answer went on with this token.

        Raises ConstraintError when the token was not allowed.
        """
        if self._pending and token == self._pending[0]:
            self._pending.pop(0)
        piece = self._spelling.piece(token)
        if self._matcher is not None:
            self._follow(token, piece)
        else:
            self._watch(piece)

    def forced(self) -> list[int]:
        """The tokens that must come next, whatever the model thinks; often none."""
        if self._pending:
            return list(self._pending)
        if self._matcher is None or self._is_optional:
            return []
        return self._matcher.forced()

    @property
    def _is_optional(self) -> bool:
        """Whether a call is complete, so that it need not go on although it could."""
        return (
            self._stage == "call"
            and not self._plan.single
            and self._matcher is not None
            and self._matcher.may_stop
        )

    def _releases(self, token: int) -> bool:
        """Whether a token shows that the call was over."""
        return self._is_optional and self._matcher is not None and not self._matcher.fits([token])

    def _takes(self, stage: Constraint, data: bytes) -> bool:
        tokens = self._spelling.spelled(data)
        return bool(tokens) and stage.fits(tokens)

    def _follow(self, token: int, piece: bytes) -> None:
        """A token under a grammar."""
        assert self._matcher is not None
        if self._releases(token):
            self._release(piece)
            return
        self._matcher.accept(token)
        if self._stage == "start":
            self._tail += piece
            opened = self._opens_reasoning()
            if opened is not None:
                self._begin_reasoning(opened)
            return
        if self._stage == "call" and self._matcher.stopped:
            if self._plan.single:
                self._stage = "over"
            else:
                self._release(b"")

    def _release(self, piece: bytes) -> None:
        """The call is over; free text again."""
        self._matcher, self._stage, self._tail = None, "free", b""
        self._watch(piece)

    def _watch(self, piece: bytes) -> None:
        """A token without a grammar: it may begin or end a stage."""
        if self._stage == "reasoning":
            self._n_reasoning += 1
        found = self._find(piece)
        if found is None:
            self._remember(piece)
            self._watch_budget()
            return
        behind, target = found
        if isinstance(target, Trigger):
            self._begin("call", target.constraint(), behind)
        elif target is None:
            self._begin_answer(behind, resumed=True)
        else:
            self._begin_reasoning(target)
            if behind:
                self._watch(behind)

    def _next_stage(self, piece: bytes) -> tuple[bytes, Callable[[], Constraint] | None] | None:
        """What of ``piece`` belongs to the next stage, and the constraint of that stage."""
        found = self._find(piece)
        if found is None:
            return None
        behind, target = found
        if isinstance(target, Trigger):
            return behind, target.constraint
        return behind, (self._plan.resumed_main or self._plan.main) if target is None else None

    def _find(self, piece: bytes) -> tuple[bytes, Trigger | Reasoning | None] | None:
        """The mark that ``piece`` completes, with what follows it; None for reasoning's end."""
        text = self._tail + piece
        if self._stage == "reasoning":
            assert self._reasoning is not None
            at = text.find(self._reasoning.close)
            return None if at < 0 else (text[at + len(self._reasoning.close) :], None)
        if self._stage == "start":
            begun = text.lstrip(WHITESPACE)
            for tags in self._plan.reasoning:
                if begun.startswith(tags.open):
                    return begun[len(tags.open) :], tags
        return self._triggers.find(text, begins=self._fresh)

    def _remember(self, piece: bytes) -> None:
        """Keep what a mark may have begun in."""
        self._tail += piece
        if self._stage == "start":
            begun = self._tail.lstrip(WHITESPACE)
            if begun and not any(tags.open.startswith(begun) for tags in self._plan.reasoning):
                self._stage = "free"
        if self._stage == "reasoning":
            assert self._reasoning is not None
            self._tail = self._tail[-len(self._reasoning.close) :]
        elif len(self._tail) > self._triggers.window:
            self._tail = self._tail[-self._triggers.window :]
            self._fresh = False

    def _watch_budget(self) -> None:
        budget = self._plan.budget
        if self._stage == "reasoning" and budget is not None and self._n_reasoning == budget:
            assert self._reasoning is not None
            self._pending = list(self._reasoning.closing)

    def _opens_reasoning(self) -> Reasoning | None:
        """The reasoning whose opening mark the answer consists of, where it may be either."""
        if self._stage != "start" or self._matcher is None:
            return None
        begun = self._tail.lstrip(WHITESPACE)
        return next((tags for tags in self._plan.reasoning if tags.open == begun), None)

    def _begin_reasoning(self, reasoning: Reasoning) -> None:
        self._stage, self._reasoning, self._matcher, self._tail = "reasoning", reasoning, None, b""
        self._watch_budget()

    def _begin_answer(self, behind: bytes, *, resumed: bool) -> None:
        """The answer proper begins, with ``behind`` as its first bytes."""
        plan = self._plan
        self._tail, self._fresh = b"", True
        main = (plan.resumed_main or plan.main) if resumed else plan.main
        if main is not None:
            self._begin("main", main(), behind)
            return
        self._stage = "free"
        if behind:
            self._watch(behind)

    def _begin(self, stage: Stage, matcher: Constraint, behind: bytes) -> None:
        self._stage, self._matcher, self._tail, self._fresh = stage, matcher, b"", False
        if stage == "call" and behind and not self._takes(matcher, behind):
            self._release(b"")  # a vocabulary that cannot spell what fits
            return
        for token in self._spelling.spelled(behind):
            matcher.accept(token)
        if stage == "call" and matcher.stopped and not self._plan.single:
            self._release(b"")

"""What an engine writes down of its work: counts for ever, times of the latest."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from mofa_gguf.engine.requests.request import FinishEvent

_N_ANSWERS = 256
_N_STEPS = 512
_N_GAPS = 2048


@dataclass
class Counters:
    """Counts since the engine was loaded."""

    n_prompt_tokens_computed: int = 0
    n_prompt_tokens_cached: int = 0
    n_generated_tokens: int = 0
    n_drafted_tokens: int = 0
    n_accepted_tokens: int = 0
    n_steps: int = 0


@dataclass(frozen=True)
class Step:
    """One step's work and how long it took, from scheduling to the last token chosen."""

    n_prompt_tokens: int
    n_generated_tokens: int
    seconds: float


class Recorder:
    """Written by the engine's thread; any thread may read copies (see the methods)."""

    def __init__(self) -> None:
        self.counters = Counters()
        self._answers: deque[FinishEvent] = deque(maxlen=_N_ANSWERS)
        self._steps: deque[Step] = deque(maxlen=_N_STEPS)
        self._gaps: deque[float] = deque(maxlen=_N_GAPS)

    def answer(self, end: FinishEvent) -> None:
        """A request ended, in whatever way."""
        self._answers.append(end)

    def step(self, before: tuple[int, int], seconds: float) -> None:
        """A step was done; ``before`` is what :meth:`mark` said when it began."""
        n_prompt, n_generated = self.mark()
        self._steps.append(Step(n_prompt - before[0], n_generated - before[1], seconds))

    def mark(self) -> tuple[int, int]:
        """Prompt tokens computed and tokens generated so far."""
        return self.counters.n_prompt_tokens_computed, self.counters.n_generated_tokens

    def gap(self, seconds: float) -> None:
        """So long after an answer's token came its next."""
        self._gaps.append(seconds)

    # copy() of a deque is one operation: no other thread can come between.

    def answers(self) -> list[FinishEvent]:
        """How the latest requests ended, oldest first."""
        return list(self._answers.copy())

    def steps(self) -> list[Step]:
        """The latest steps."""
        return list(self._steps.copy())

    def gaps(self) -> list[float]:
        """The latest times between two tokens of one answer."""
        return list(self._gaps.copy())

"""What an answer may consist of: plain values for :mod:`mofa_gguf.engine.structure.staged`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mofa_gguf.engine.structure.constraint import Constraint


@dataclass(frozen=True)
class Reasoning:
    """The marks of one kind of reasoning; ``closing`` are the tokens that end it by force."""

    open: bytes
    close: bytes
    closing: Sequence[int] = ()


@dataclass(frozen=True)
class Trigger:
    """A text that begins a call, and the constraint of what stands behind it.

    ``pattern`` is a regular expression. With ``at_start`` it only counts at the beginning of an
    answer, after reasoning and white space.
    """

    pattern: bytes
    constraint: Callable[[], Constraint]
    at_start: bool = False


@dataclass(frozen=True, kw_only=True)
class AnswerPlan:
    """What an answer may consist of.

    ``main`` is what all of it must be, None where it is free. ``opening_main`` is the same for the
    very beginning, where the marks that open reasoning may stand in its place; ``resumed_main`` is
    for what follows reasoning. ``reasoning`` may begin an answer, ``opened`` has begun in the
    prompt, and is closed after ``budget`` tokens. ``triggers`` wake the constraint of a call in
    free text; ``single`` says that an answer ends with its first call.
    """

    main: Callable[[], Constraint] | None = None
    opening_main: Callable[[], Constraint] | None = None
    resumed_main: Callable[[], Constraint] | None = None
    reasoning: tuple[Reasoning, ...] = ()
    opened: Reasoning | None = None
    budget: int | None = None
    triggers: tuple[Trigger, ...] = ()
    single: bool = False

"""What a residency is asked, and what it wants done: plain values."""

from __future__ import annotations

from dataclasses import dataclass

from mofa_gguf.provider.room import Tenant


@dataclass(eq=False)
class Ticket:
    """One user of one model, from asking for it to letting go of it."""

    model: str
    admitted: bool = False
    over: bool = False


@dataclass(frozen=True)
class Find:
    """Look for the model's file, then tell :meth:`Residency.found`."""

    model: str


@dataclass(frozen=True)
class Load:
    """Load the model, then tell :meth:`Residency.loaded`."""

    model: str


@dataclass(frozen=True)
class Unload:
    """Free the model, then tell :meth:`Residency.unloaded`."""

    model: str


@dataclass(frozen=True)
class Admit:
    """The ticket's holder may use the model."""

    ticket: Ticket


@dataclass(frozen=True)
class Refuse:
    """The ticket's holder gets no model: ``no_room`` tells why, or the model's own failure does."""

    ticket: Ticket
    no_room: NoRoom | None = None


@dataclass(frozen=True)
class NoRoom:
    """Why a model does not fit. ``waited_s`` is None where waiting would not help."""

    model: str
    n_bytes: int
    budget_bytes: int
    in_use: tuple[Tenant, ...]
    waited_s: float | None = None


Action = Find | Load | Unload | Admit | Refuse

"""Which replica a request goes to: a plain function of what is known, and what is known."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence

from mofa_gguf_ray.prefixes import Prefix

CHARS_PER_REQUEST = 512
"""A request in flight weighs as much as computing so many characters of a prompt."""

_MAX_KEYS = 50_000


def preferred(
    n_chars: int,
    held: Mapping[str, int],
    loads: Mapping[str, int],
    *,
    slots: int,
    chars_per_request: int = CHARS_PER_REQUEST,
) -> str | None:
    """The replica that holds the beginning of a prompt, unless it is overloaded; None then.

    A replica's price is what it would have to compute of the prompt and what is in its way. One
    that holds a beginning is overloaded when another, without it, would be cheaper by more than a
    request (one just answered may still be counted), or when it has all its ``slots`` in use and
    another has not.

    Args:
        n_chars: the length of the prompt.
        held: how many characters of it each replica has computed before.
        loads: the requests in flight on each replica that may be chosen.
        slots: how many requests a replica runs at once.
        chars_per_request: what one of them weighs.
    """
    holders = [name for name in loads if held.get(name)]
    if not holders:
        return None

    def price(name: str) -> tuple[bool, int]:
        is_full = loads[name] >= slots
        return is_full, n_chars - held.get(name, 0) + loads[name] * chars_per_request

    best = min(holders, key=price)
    is_full, at_price = price(best)
    tolerated = (is_full, at_price - chars_per_request)
    return best if all(tolerated <= price(name) for name in loads) else None


class PrefixTable:
    """Which replica computed which beginnings, the latest of them. Not for several threads."""

    def __init__(self, max_keys: int = _MAX_KEYS) -> None:
        self._max_keys = max_keys
        self._replicas_of: OrderedDict[int, set[str]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._replicas_of)

    def held(self, prompt: Sequence[Prefix]) -> dict[str, int]:
        """How many characters of a prompt each replica has computed."""
        held: dict[str, int] = {}
        for prefix in reversed(prompt):
            for name in self._replicas_of.get(prefix.key, ()):
                held.setdefault(name, prefix.n_chars)
        return held

    def add(self, prompt: Sequence[Prefix], replica: str) -> None:
        """A replica was given a prompt."""
        # The longest first: of one prompt, its end is forgotten before its beginning.
        for prefix in reversed(prompt):
            self._replicas_of.setdefault(prefix.key, set()).add(replica)
            self._replicas_of.move_to_end(prefix.key)
        while len(self._replicas_of) > self._max_keys:
            self._replicas_of.popitem(last=False)

    def keep_only(self, replicas: frozenset[str]) -> None:
        """Forget what those had that are not among these."""
        for key, names in list(self._replicas_of.items()):
            names &= replicas
            if not names:
                del self._replicas_of[key]

"""What one rendering may cost, and the meter that counts it.

Chat templates come out of model files, so they are foreign programs. Jinja's sandbox keeps them
from reaching Python's internals, but not from looping for an hour or building a string of a
terabyte. A :class:`Meter` lives as long as one rendering; :mod:`mofa_gguf.chat.sandbox` makes the
compiled template call it at every statement, loop turn, comparison and call, and announces every
value before it is made larger. Three rules follow, and together they bound time and memory:

* no single value may weigh more than ``max_value`` (weights count characters, and containers count
  everything inside them as often as it occurs, so a few lines of nested lists cannot hide a value
  that takes forever to print or compare);
* all values made during a rendering may not weigh more than ``allowance`` together;
* the clock is read at every step, and no step takes long because no value is large.

Both weights grow with the size of the conversation, so long conversations are not refused.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

from mofa_gguf.chat.errors import TemplateTooCostly

_SCALAR = 8
_CONTAINER = 16


@dataclass(frozen=True, kw_only=True)
class RenderLimits:
    """Bounds of one rendering; the defaults are generous for any real conversation.

    Characters are what ``len`` of a string counts. The time is processor time of the rendering
    thread, so that a busy machine does not make sound templates fail.
    """

    cpu_s: float = 0.3
    cpu_s_per_million_chars: float = 4.0
    value_chars: int = 2_000_000
    value_chars_per_input_char: int = 4
    total_chars: int = 32_000_000
    total_chars_per_input_char: int = 64


class Meter:
    """Counts what a rendering uses; raises TemplateTooCostly when it is too much.

    ``inputs`` is everything the template is given; the limits grow with its weight.
    """

    def __init__(self, limits: RenderLimits, *, inputs: object = None) -> None:
        # id -> (container, weight); keeping the container keeps its id from being used again.
        self._weights: dict[int, tuple[object, int]] = {}
        n_input_chars = self._weigh(inputs)
        self.max_value = limits.value_chars + limits.value_chars_per_input_char * n_input_chars
        self._allowance = limits.total_chars + limits.total_chars_per_input_char * n_input_chars
        self._cpu_s = limits.cpu_s + limits.cpu_s_per_million_chars * n_input_chars / 1_000_000
        self._wall_end = time.perf_counter() + self._cpu_s
        self._cpu_end = time.thread_time() + self._cpu_s

    def tick(self) -> None:
        """One step of work. Reads the clock; the processor's clock only when it can matter."""
        if time.perf_counter() > self._wall_end:
            self._check_cpu()

    def _check_cpu(self) -> None:
        used_up = self._cpu_end - time.thread_time()
        if used_up <= 0:
            raise TemplateTooCostly(f"it took more than {self._cpu_s:.1f} s")
        self._wall_end = time.perf_counter() + used_up

    def allow(self, n_chars: int) -> None:
        """Ask before making a value of about ``n_chars`` characters."""
        if n_chars > self.max_value:
            raise TemplateTooCostly(
                f"it made a value of {n_chars} characters, more than {self.max_value}"
            )

    def spend(self, n_chars: int) -> None:
        """Account for a value of ``n_chars`` characters that was, or is about to be, made."""
        self.allow(n_chars)
        self._allowance -= n_chars
        if self._allowance < 0:
            raise TemplateTooCostly("it made too much text")
        self.tick()

    def weigh(self, value: object) -> int:
        """The weight of a value, everything inside it included; at most ``max_value``."""
        weight = self._weigh(value)
        self.allow(weight)
        return weight

    def _weigh(self, value: object) -> int:
        if isinstance(value, (str, bytes)):
            return _SCALAR + len(value)
        if isinstance(value, (list, tuple, dict)):
            known = self._weights.get(id(value))
            return known[1] if known is not None else self._weigh_container(value)
        if isinstance(value, int):
            return _SCALAR + value.bit_length() // 3
        return _SCALAR

    def _weigh_container(self, root: object) -> int:
        # Iterative, because how deep a value nests is the template's choice.
        stack = [root]
        weight = 0
        while stack:
            node = stack[-1]
            weight = _CONTAINER
            waiting = False
            for item in _children(node):
                if isinstance(item, (list, tuple, dict)):
                    known = self._weights.get(id(item))
                    if known is None:
                        stack.append(item)
                        waiting = True
                    else:
                        weight += known[1]
                else:
                    weight += self._weigh(item)
            if not waiting:
                self._weights[id(node)] = (node, weight)
                stack.pop()
        return weight


def _children(container: object) -> Iterable[object]:
    if isinstance(container, dict):
        return (*container.keys(), *container.values())
    assert isinstance(container, (list, tuple))
    return container

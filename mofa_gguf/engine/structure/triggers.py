"""Where in free text a call begins."""

from __future__ import annotations

import re
from collections.abc import Sequence

from mofa_gguf.engine.structure.answer_plan import Trigger

WHITESPACE = b" \t\r\n"


class TriggerFinder:
    """Looks for the triggers of one plan, all of them at once.

    ``window`` is how many of the last bytes of a text must be kept so that a trigger that began
    there is found when it is complete.
    """

    def __init__(self, triggers: Sequence[Trigger]) -> None:
        self._anywhere = [trigger for trigger in triggers if not trigger.at_start]
        self._at_start = [trigger for trigger in triggers if trigger.at_start]
        self._anywhere_pattern = _any_of(self._anywhere)
        self._at_start_pattern = _any_of(self._at_start)
        self.window = max([64, *(2 * len(trigger.pattern) for trigger in triggers)])

    def find(self, text: bytes, *, begins: bool) -> tuple[bytes, Trigger] | None:
        """What follows the first trigger in a text, and that trigger.

        ``begins`` says that the text is an answer's beginning: a trigger that counts only there
        goes before the others.
        """
        if begins and self._at_start_pattern is not None:
            begun = text.lstrip(WHITESPACE)
            first = self._at_start_pattern.match(begun)
            if first is not None:
                return begun[first.end() :], self._at_start[_number(first)]
        if self._anywhere_pattern is None:
            return None
        found = self._anywhere_pattern.search(text)
        return None if found is None else (text[found.end() :], self._anywhere[_number(found)])


def _any_of(triggers: Sequence[Trigger]) -> re.Pattern[bytes] | None:
    patterns = [b"(?P<t%d>%b)" % (i, each.pattern) for i, each in enumerate(triggers)]
    return re.compile(b"|".join(patterns)) if patterns else None


def _number(found: re.Match[bytes]) -> int:
    """Which of the patterns matched; their own groups do not count."""
    return next(
        number for number in range(len(found.re.groupindex)) if found.start(f"t{number}") >= 0
    )

"""Reading text that is still arriving.

Parsers of streamed text are written here as ordinary sequential code: generators that ``yield``
whenever they need more text than has come so far. Whoever drives them feeds the cursor and resumes
them. Since a reader never acts on where a piece ended, only on what it reads, the result cannot
depend on how the text was cut.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Sequence
from typing import TypeVar

T = TypeVar("T")

Reading = Generator[None, None, T]
"""A reader: yields when it needs more text, returns what it read."""

WHITESPACE = " \t\r\n"

NUMBER = "{number}"
"""Stands for digits in the texts of a format."""

_DIGIT = re.compile(r"[0-9]")

# Outside of JSON's strings: a bracket, a quote, or a character that JSON does not have there.
_STRUCTURE = re.compile(r'[\[\]{}"]|[^ \t\r\n0-9,:+\-.eEtrufalsn]')
_IN_STRING = re.compile(r'["\\]')
_CLOSER = {"{": "}", "[": "]"}


class Cursor:
    """The part of the text that has come and was not read yet.

    ``read`` is what was read since :meth:`mark`, so that it can be given back as it was.
    """

    def __init__(self) -> None:
        self.ahead = ""
        self.final = False
        self._read: list[str] = []

    def feed(self, text: str) -> None:
        """More text has come."""
        self.ahead += text

    def mark(self) -> None:
        """Forget what was read so far."""
        self._read.clear()

    @property
    def read(self) -> str:
        """What was read since the last mark."""
        return "".join(self._read)

    def take(self, n_chars: int) -> str:
        """Read ``n_chars`` that have come already."""
        taken, self.ahead = self.ahead[:n_chars], self.ahead[n_chars:]
        self._read.append(taken)
        return taken

    def more(self) -> Reading[bool]:
        """Wait for at least one unread character; False when no more comes."""
        while not self.ahead:
            if self.final:
                return False
            yield
        return True

    def whitespace(self) -> Reading[str]:
        """Read white space; returns it."""
        pieces = []
        while (yield from self.more()):
            n = len(self.ahead) - len(self.ahead.lstrip(WHITESPACE))
            pieces.append(self.take(n))
            if self.ahead:
                break
        return "".join(pieces)

    def match(self, *options: str) -> Reading[str | None]:
        """Read the longest of ``options`` that comes next; None, and nothing read, if none does."""
        while True:
            undecided = not self.final and any(
                len(option) > len(self.ahead) and option.startswith(self.ahead)
                for option in options
            )
            if not undecided:
                break
            yield
        found = [option for option in options if self.ahead.startswith(option)]
        if not found:
            return None
        return self.take(len(max(found, key=len)))

    def word(self, pattern: re.Pattern[str]) -> Reading[str]:
        """Read characters as long as each matches ``pattern``; returns them, possibly none."""
        pieces = []
        while (yield from self.more()):
            n = 0
            while n < len(self.ahead) and pattern.match(self.ahead[n]):
                n += 1
            pieces.append(self.take(n))
            if self.ahead:
                break
        return "".join(pieces)

    def expect(self, text: str) -> Reading[bool]:
        """Read ``text``, whatever white space stands around and between its words.

        ``{number}`` in it stands for digits. False as soon as something else comes.
        """
        for word in text.split():
            yield from self.whitespace()
            before, number, after = word.partition(NUMBER)
            if before and not (yield from self.match(before)):
                return False
            if number and not (yield from self.word(_DIGIT)):
                return False
            if after and not (yield from self.match(after)):
                return False
        return True

    def until(self, end: str, *followers: str) -> Reading[str | None]:
        """Read text and the first ``end`` behind it; returns the text, None when there is no end.

        With ``followers``, only an end counts that one of them follows, or white space and the end
        of everything: text between tags is not escaped and may hold the closing tag.
        """
        pieces: list[str] = []
        while True:
            at = self.ahead.find(end)
            if at < 0:
                if self.final:
                    return None
                pieces.append(self.take(len(self.ahead) - held_back(self.ahead, (end,))))
                yield
                continue
            tail = self.ahead[at + len(end) :].lstrip(WHITESPACE)
            if not followers or tail.startswith(followers) or (self.final and not tail):
                pieces.append(self.take(at))
                self.take(len(end))
                return "".join(pieces)
            if not self.final and any(follower.startswith(tail) for follower in followers):
                yield
                continue
            pieces.append(self.take(at + 1))

    def rest(self) -> Reading[str]:
        """Read everything up to the end of the text."""
        pieces = []
        while (yield from self.more()):
            pieces.append(self.take(len(self.ahead)))
        return "".join(pieces)

    def json_text(self, *, end: str | None = None) -> Reading[str | None]:
        """Read an object or array up to its last bracket.

        Only the brackets and strings are followed; whether it is JSON the caller finds out. None
        when no bracket comes next, when a character comes that JSON cannot have, or when the text
        ends too early. With ``end``, brackets left open in front of that text are closed: there
        is only one way to do it.
        """
        pieces: list[str] = []
        opened: list[str] = []
        in_string = False
        while (yield from self.more()):
            n, in_string, closed = _scan(self.ahead, opened, in_string)
            pieces.append(self.take(n))
            if closed:
                return "".join(pieces)
            if self.ahead == "\\" and in_string:
                # An escape and what it escapes belong together.
                if self.final:
                    return None
                yield
            elif self.ahead:
                if end is not None and opened and (yield from self._comes_next(end)):
                    return "".join(pieces) + "".join(_CLOSER[symbol] for symbol in opened[::-1])
                return None
        return None

    def _comes_next(self, text: str) -> Reading[bool]:
        while len(self.ahead) < len(text) and text.startswith(self.ahead) and not self.final:
            yield
        return self.ahead.startswith(text)


def _scan(text: str, opened: list[str], in_string: bool) -> tuple[int, bool, bool]:
    """Follow JSON's brackets and strings through ``text``, keeping ``opened`` up to date.

    Returns where it stopped (at the end, behind the last closing bracket, at an escape, or at a
    character that JSON does not have there), whether that is inside a string, and whether the
    value is complete.
    """
    n = 0
    while n < len(text):
        found = (_IN_STRING if in_string else _STRUCTURE).search(text, n)
        # Before the first bracket nothing else may stand.
        if not opened and (found is None or found.start() > n or found[0] not in "{["):
            return n, False, False
        if found is None:
            return len(text), in_string, False
        n = found.start()
        symbol = found[0]
        if symbol == '"':
            in_string = not in_string
        elif in_string:  # a backslash, and whatever it escapes
            if n + 1 == len(text):
                return n, True, False
            n += 1
        elif symbol in _CLOSER:
            opened.append(symbol)
        elif symbol in "]}" and _CLOSER[opened[-1]] == symbol:
            opened.pop()
            if not opened:
                return n + 1, False, True
        else:
            return n, False, False
        n += 1
    return n, in_string, False


def held_back(text: str, markers: Sequence[str]) -> int:
    """How many characters at the end of ``text`` may be the beginning of a marker."""
    longest = max(map(len, markers), default=1) - 1
    for n in range(min(longest, len(text)), 0, -1):
        tail = text[-n:]
        if any(marker.startswith(tail) for marker in markers):
            return n
    return 0


def first_marker(text: str, markers: Sequence[str]) -> tuple[int, str] | None:
    """Where the first marker stands in ``text``, and which it is (the longest, if several)."""
    found = [(text.find(marker), -len(marker), marker) for marker in markers if marker in text]
    if not found:
        return None
    at, _, marker = min(found)
    return at, marker

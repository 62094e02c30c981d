"""Token bytes to text as it comes: no half character and no partial stop string gets out."""

from __future__ import annotations

import codecs
from collections.abc import Sequence


class TextStream:
    """Turns the bytes of tokens into text for one answer.

    Bytes that are no UTF-8 become U+FFFD. Text that may be the beginning of a stop string is held
    back until it is certain. When a stop string is complete, the text before it is the end of
    the answer and :attr:`stopped_by` names it.
    """

    def __init__(self, stop: Sequence[str] = ()) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._whole = True  # no part of a character is held back
        self._stop = tuple(s for s in stop if s)
        self._held = ""
        self.stopped_by: str | None = None

    def feed(self, data: bytes) -> str:
        """Text that has become certain with ``data``; empty after a stop string."""
        if self.stopped_by is not None:
            return ""
        if self._whole and not self._stop:
            try:
                return data.decode()  # nearly always: it takes a quarter of the decoder's time
            except UnicodeDecodeError:
                pass
        text = self._decoder.decode(data)
        self._whole = not self._decoder.getstate()[0]
        return self._release(text)

    def finish(self) -> str:
        """What is left when the answer ends by itself."""
        if self.stopped_by is not None:
            return ""
        text = self._release(self._decoder.decode(b"", final=True))
        rest, self._held = self._held, ""
        return text + rest

    def _release(self, text: str) -> str:
        text = self._held + text
        self._held = ""
        if not self._stop or not text:
            return text
        found = [(at, s) for s in self._stop if (at := text.find(s)) >= 0]
        if found:
            at, self.stopped_by = min(found, key=lambda pair: (pair[0], -len(pair[1])))
            return text[:at]
        keep = self._partial(text)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def _partial(self, text: str) -> int:
        """Length of the longest end of ``text`` that begins a stop string."""
        longest = min(len(text), max(map(len, self._stop)) - 1)
        for n in range(longest, 0, -1):
            if any(s.startswith(text[-n:]) for s in self._stop):
                return n
        return 0

"""Text that a SentencePiece vocabulary cannot write: llama.cpp ends the process on it.

Its tokenizer spells a character that is no token with byte tokens (``<0xE2>``), and throws where
the vocabulary has none (``byte_to_token`` in src/llama-vocab.cpp), which nothing catches.
SentencePiece itself would give the unknown token.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

_BYTES_AMONG_THE_FIRST = 1024
_STAND_INS = ("\u2047", "?", "_", ".", " ")
_SPACE = "\u2581"


def has_all_bytes(text_of: Callable[[int], str], n_tokens: int) -> bool:
    """Whether all byte tokens are where converters put them, near the beginning."""
    first = {text_of(i) for i in range(min(n_tokens, _BYTES_AMONG_THE_FIRST))}
    return all(f"<0x{byte:02X}>" in first for byte in range(256))


class Writable:
    """What a vocabulary with the tokens ``texts`` can write.

    Special tokens are found in a text before it is cut into characters, and are left alone:
    ``user_defined`` ones always, ``control`` tokens where they are to be read as such.
    """

    def __init__(
        self, texts: Sequence[str], *, user_defined: Iterable[str] = (), control: Iterable[str] = ()
    ) -> None:
        self._characters = {text for text in texts if len(text) == 1}
        known = set(texts)
        ascii_bytes = (chr(byte) if byte < 128 else "" for byte in range(256))
        self._bytes = {
            byte
            for byte, text in enumerate(ascii_bytes)
            if f"<0x{byte:02X}>" in known or text in known
        }
        always = [*user_defined]
        self._specials = (_pattern(always), _pattern([*always, *control]))
        self._stand_in = next((c for c in _STAND_INS if self._can(c)), "")

    def __call__(self, text: str, *, parse_special: bool = False) -> str:
        """``text`` with a stand-in ("⁇", "?", ...) for every character that cannot be written."""
        specials = self._specials[parse_special]
        parts = specials.split(text) if specials else [text]
        return "".join(part if n % 2 else self._written(part) for n, part in enumerate(parts))

    def _written(self, text: str) -> str:
        wrong = {c for c in set(text) if not self._can(c)}
        return "".join(self._stand_in if c in wrong else c for c in text) if wrong else text

    def _can(self, character: str) -> bool:
        character = _SPACE if character == " " else character
        return character in self._characters or self._bytes.issuperset(
            character.encode("utf-8", errors="surrogatepass")
        )


def _pattern(texts: Iterable[str]) -> re.Pattern[str] | None:
    pattern = "|".join(re.escape(text) for text in sorted(texts, key=len, reverse=True))
    return re.compile(f"({pattern})") if pattern else None

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

    ``specials`` are found in a text before it is cut into characters, and are left alone.
    """

    def __init__(self, texts: Sequence[str], specials: Iterable[str]) -> None:
        self._characters = {text for text in texts if len(text) == 1}
        known = set(texts)
        ascii_bytes = (chr(byte) if byte < 128 else "" for byte in range(256))
        self._bytes = {
            byte
            for byte, text in enumerate(ascii_bytes)
            if f"<0x{byte:02X}>" in known or text in known
        }
        pattern = "|".join(re.escape(text) for text in sorted(specials, key=len, reverse=True))
        self._specials = re.compile(f"({pattern})") if pattern else None
        self._stand_in = next((c for c in _STAND_INS if self._can(c)), "")

    def __call__(self, text: str) -> str:
        """``text`` with a stand-in ("⁇", "?", ...) for every character that cannot be written."""
        parts = self._specials.split(text) if self._specials else [text]
        return "".join(part if n % 2 else self._written(part) for n, part in enumerate(parts))

    def _written(self, text: str) -> str:
        wrong = {c for c in set(text) if not self._can(c)}
        return "".join(self._stand_in if c in wrong else c for c in text) if wrong else text

    def _can(self, character: str) -> bool:
        character = _SPACE if character == " " else character
        return character in self._characters or self._bytes.issuperset(
            character.encode("utf-8", errors="surrogatepass")
        )

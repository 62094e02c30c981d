"""Texts beyond the battery: what may show that a file needs more than llama.cpp's vocabulary.

A tokenizer that agrees on the battery can still differ on a rare character (its Unicode tables are
newer, its normalization touches a handful) or beside an added token that strips white space. Such
texts refuse no conversion; they decide what the file keeps, see ``exactness``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from mofa_gguf.convert.tokenizer.added import token_type
from mofa_gguf.convert.tokenizer.hf_json import AddedToken
from mofa_gguf.convert.tokenizer.vocabulary import TokenType

_MAX_ADDED = 200
_N_TOGETHER = 12
_STEP = 97
# Where characters are assigned, but for the blocks of Unicode 16 and 17, which hardly any text has
# and no table of llama.cpp: planes 0 and 1, ideographs of planes 2 and 3, tags of plane 14.
_BLOCKS = (
    *(
        (0xA1, 0xD7A4),
        (0xF900, 0xFFFE),
        (0x10000, 0x10D00),
        (0x10E60, 0x11DB0),
        (0x11EE0, 0x12544),
        (0x13000, 0x13430),
    ),
    *((0x14400, 0x14647), (0x16800, 0x16FA0), (0x17000, 0x18D00), (0x1B000, 0x1B2FC)),
    *((0x1BC00, 0x1BCA0), (0x1CF00, 0x1D378), (0x1D400, 0x1E150), (0x1E2C0, 0x1FAF0)),
    *((0x20000, 0x20400), (0x31350, 0x31380), (0xE0020, 0xE0080), (0xE0100, 0xE01F0)),
)
# All kinds of white space and control; marks that enclose; what normalization maps to one other
# character; letters with unusual case; punctuation that entered Unicode late.
_CHOSEN = (
    "\x00\x01\x0b\x0c\x1c\x1f\x7f\x80\x85\x9f\xa0\xad\u061c\u1680\u180e\u2000\u2001\u2002\u2003"
    "\u200a\u200b\u200c\u200d\u2028\u2029\u202f\u205f\u2060\u3000\ufeff\ufffd\u0488\u20dd\u20e0"
    "\u0340\u0343\u0344\u0374\u037e\u0387\u1fef\u2126\u212a\u212b\u2329\u2adc\uf900\ufb1d\U0002f800"
    "\u0130\u0131\u017f\u1e9e\u01c5\u03c2\u0149\ufb01\uff21\u3392\u2e4f\u2e52\u2e54\u2e56\u2e57"
    "\u2e5d\u1b7d\u061d\U00010ead\U00011a43\U0001166c\u0891\U00013438\U0001cf20"
)


class RareText(NamedTuple):
    """A text, and whether control tokens written out in it are read as such."""

    text: str
    parse_special: bool = False


def rare_texts(added: Sequence[AddedToken]) -> Iterator[RareText]:
    """Rare characters in several places, then every kind of place for the added tokens."""
    yield from _rare_characters()
    step = max(1, len(added) // _MAX_ADDED)
    for token in added[::step]:
        is_control = token_type(token) is TokenType.CONTROL
        # SentencePiece's sign for a space stands for one.
        spelled = token.content if is_control else token.content.replace("\u2581", " ")
        text = f"a {spelled} b{spelled}c {spelled}{spelled}\n {spelled}\n{spelled}  d"
        yield RareText(text, parse_special=is_control)


def _rare_characters() -> Iterator[RareText]:
    swept = [chr(code) for first, last in _BLOCKS for code in range(first, last, _STEP)]
    characters = [*_CHOSEN, *swept]
    for at in range(0, len(characters), _N_TOGETHER):
        yield RareText(
            "".join(f"a{c}b {c}{c} 1{c}2 .{c} \n{c}" for c in characters[at : at + _N_TOGETHER])
        )

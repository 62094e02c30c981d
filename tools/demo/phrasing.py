"""How people type: greetings before a question, politeness after it, capitals, marks, slips."""

# ruff: noqa: SIM905 -- lists of phrases read best as one text
from __future__ import annotations

import random

_BEFORE = (
    "hey, |hi, |hello, |please tell me, |tell me, |can you tell me: |so, |ok, |I have a question: |"
    "one question: |quick question: |excuse me, |sorry, |well, |now, |and |also, |um, |hey there, |"
    "another question: |hi there, |please, |good morning, |next question: |then "
).split("|")
_AFTER = (" please", ", please", ", thanks", " then", ", my friend", " now", " exactly", " again")
_MARKS_QUESTION = ("?", "?", "?", "?", "", "", ".", "??", " ?", "?!")
_MARKS_OTHER = ("", "", ".", ".", "!", "!", "!!", "...", " .")


def wrap(rng: random.Random, text: str, *, plain_share: float = 0.5) -> tuple[str, str]:
    """Put a phrase around a question; give the text and the combination's key ("" if bare)."""
    if rng.random() < plain_share:
        return text, ""
    before = rng.choice(_BEFORE) if rng.random() < 0.75 else ""
    after = rng.choice(_AFTER) if not before or rng.random() < 0.3 else ""
    return f"{before}{text}{after}", f"{before}|{text}|{after}"


def is_question(text: str) -> bool:
    """Whether a text looks like a question, from its words."""
    starts = ("what", "who", "where", "when", "why", "how", "which", "is ", "are ", "do ", "does ")
    more = (
        "can ",
        "am ",
        "have ",
        "has ",
        "must ",
        "should ",
        "in which",
        "under which",
        "in what",
    )
    low = text.lower()
    return low.startswith(starts + more) or any(
        f" {w} " in f" {low} " for w in ("what", "who", "how")
    )


def finish(rng: random.Random, text: str, *, question: bool | None = None) -> str:
    """Add a closing mark and choose the capitals."""
    asks = is_question(text) if question is None else question
    if not text.endswith((".", "!", "?", "=")):
        text += rng.choice(_MARKS_QUESTION if asks else _MARKS_OTHER)
    return first_letter(rng, text)


def first_letter(rng: random.Random, text: str) -> str:
    """Start with a capital more often than not; spacing and the rest stay."""
    return text[:1].upper() + text[1:] if rng.random() < 0.6 else text


def lower_sometimes(rng: random.Random, text: str, *, share: float = 0.15) -> str:
    """The whole text in small letters now and then, more rarely in capitals."""
    draw = rng.random()
    if draw < share:
        return text.lower()
    return text.upper() if draw > 0.985 else text


def slip(rng: random.Random, text: str, *, share: float = 0.05) -> str:
    """Now and then a typing slip: two letters swapped, one lost or one doubled."""
    if len(text) < 8 or rng.random() >= share:
        return text
    at = rng.randrange(1, len(text) - 2)
    kind = rng.randrange(3)
    if kind == 0:
        return text[:at] + text[at + 1] + text[at] + text[at + 2 :]
    return text[:at] + text[at + 1 :] if kind == 1 else text[:at] + text[at] + text[at:]

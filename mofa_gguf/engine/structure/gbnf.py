"""llama.cpp's grammar notation, GBNF, as a grammar in llguidance's variant of Lark's syntax.

Notation: llama.cpp's grammars/README.md and src/llama-grammar.cpp. GBNF knows no lexer: every
character is matched for itself, wherever some rule lets it. llguidance has one, which takes the
longest piece of text that any terminal matches; so each terminal written here is a single
character, and there is never a longer piece to take.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass

from mofa_gguf.engine.errors import ConstraintError

_NAME = re.compile(r"[a-zA-Z0-9-]+")
_DEFINED = re.compile(r"[ \t]*::=")
_REPEAT = re.compile(r"\{[ \t]*(\d+)?[ \t]*(,)?[ \t]*(\d+)?[ \t]*\}")
_TOKEN = re.compile(r"<(\[\d+\]|[^<>\s\[\]]+)>")
_HEX_DIGITS = {"x": 2, "u": 4, "U": 8}
_PLAIN_ESCAPES = {
    "t": "\t",
    "r": "\r",
    "n": "\n",
    "\\": "\\",
    '"': '"',
    "[": "[",
    "]": "]",
    "-": "-",
}
_MAX_DEPTH = 200
_LAST_CODEPOINT = 0x10FFFF


def lark_of(grammar: str) -> str:
    """The same grammar in Lark. Raises ConstraintError saying what is wrong, and in which line."""
    return _Reader(grammar).lark()


@dataclass(frozen=True)
class _Item:
    """An expression of Lark; ``is_empty`` for one that matches only the empty text."""

    text: str
    is_empty: bool = False


class _Reader:
    """Reads a grammar from its beginning to its end."""

    def __init__(self, grammar: str) -> None:
        self._text = grammar
        self._at = 0
        self._rules: dict[str, str] = {}
        self._uses: dict[str, int] = {}
        self._depth = 0

    def lark(self) -> str:
        """All rules, with ``start`` first."""
        self._space(lines=True)
        while self._at < len(self._text):
            self._rule()
            self._space(lines=True)
        if "root" not in self._rules:
            raise self._problem("there is no rule 'root'")
        for name, at in self._uses.items():
            if name not in self._rules:
                self._at = at
                raise self._problem(f"there is no rule {name!r}")
        lines = [f"{_rule_name(name)}: {body}" for name, body in self._rules.items()]
        return "\n".join([f"start: {_rule_name('root')}", *lines, ""])

    def _rule(self) -> None:
        name = self._match(_NAME)
        if name is None or self._match(_DEFINED) is None:
            raise self._problem("a rule like 'name ::= ...' must begin here")
        self._space(lines=True)
        if name[0] in self._rules:
            raise self._problem(f"the rule {name[0]!r} is defined twice")
        self._rules[name[0]] = self._alternatives(nested=False)
        if self._at < len(self._text) and self._text[self._at] not in "\r\n":
            raise self._problem(f"{self._text[self._at]!r} cannot stand here")

    def _alternatives(self, *, nested: bool) -> str:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise self._problem("it is nested too deeply")
        found = [self._sequence(nested=nested)]
        while self._next() == "|":
            self._at += 1
            self._space(lines=True)
            found.append(self._sequence(nested=nested))
        self._depth -= 1
        return " | ".join(found)

    def _sequence(self, *, nested: bool) -> str:
        items: list[str] = []
        while (item := self._item(nested=nested)) is not None:
            self._space(lines=nested)
            repeated = self._repeated(item, nested=nested)
            if repeated is not None and not repeated.is_empty:
                items.append(repeated.text)
        return " ".join(items) or '""'

    def _item(self, *, nested: bool) -> _Item | None:
        symbol = self._next()
        readers: dict[str, Callable[[], _Item]] = {
            '"': self._literal,
            "[": self._class,
            "(": self._group,
            "<": self._token,
            ".": self._any,
        }
        if symbol in readers:
            return readers[symbol]()
        if symbol == "!":
            raise self._problem("tokens that are excluded (!<...>) cannot be enforced")
        name = self._match(_NAME)
        if name is None:
            return None
        self._uses.setdefault(name[0], name.start())
        return _Item(_rule_name(name[0]))

    def _repeated(self, item: _Item, *, nested: bool) -> _Item | None:
        """The item with what says how often it stands; None for never."""
        while (symbol := self._next()) and symbol in "*+?{":
            counts = symbol
            if symbol == "{":
                found = self._match(_REPEAT)
                if found is None or not (found[1] or found[2]):
                    raise self._problem("a repetition is written {n}, {n,}, {n,m} or {,m}")
                counts, never = self._counts(found)
                if never:
                    item = _Item('""', is_empty=True)
            else:
                self._at += 1
            self._space(lines=nested)
            if not item.is_empty:
                item = _Item(f"({item.text}){counts}")
        return item

    def _counts(self, found: re.Match[str]) -> tuple[str, bool]:
        low = int(found[1] or 0)
        if not found[2]:
            return f"{{{low}}}", low == 0
        if found[3] is not None and int(found[3]) < low:
            raise self._problem(f"{{{low},{found[3]}}} asks for more than it allows")
        return f"{{{low},{found[3] or ''}}}", found[3] is not None and int(found[3]) == 0

    def _literal(self) -> _Item:
        self._at += 1
        characters = []
        while self._next() != '"':
            characters.append(self._character())
        self._at += 1
        spelled = " ".join(json.dumps(each, ensure_ascii=False) for each in characters)
        return _Item(f"({spelled})") if characters else _Item('""', is_empty=True)

    def _class(self) -> _Item:
        self._at += 1
        negated = self._next() == "^"
        self._at += negated
        ranges: list[str] = []
        while self._next() != "]":
            first = last = self._character()
            if self._next() == "-" and self._text[self._at + 1 : self._at + 2] != "]":
                self._at += 1
                last = self._character()
            if last < first:
                raise self._problem(f"the range {first}-{last} is empty")
            ranges.append(f"{_codepoint(first)}-{_codepoint(last)}")
        self._at += 1
        if not ranges:
            if negated:
                return _Item("/(?s:.)/")
            raise self._problem("a class of no characters matches nothing")
        return _Item(f"/[{'^' if negated else ''}{''.join(ranges)}]/")

    def _group(self) -> _Item:
        self._at += 1
        self._space(lines=True)
        inner = self._alternatives(nested=True)
        if self._next() != ")":
            raise self._problem("a ')' is missing")
        self._at += 1
        return _Item(f"({inner})", is_empty=inner == '""')

    def _token(self) -> _Item:
        found = self._match(_TOKEN)
        if found is None:
            raise self._problem("a token is written <[id]> or <name>")
        return _Item(found[0])

    def _any(self) -> _Item:
        self._at += 1
        return _Item("/(?s:.)/")

    def _character(self) -> str:
        """One character of a literal or class."""
        symbol = self._next()
        if not symbol:
            raise self._problem("it ends inside a text")
        self._at += 1
        if symbol != "\\":
            return symbol
        kind = self._next()
        self._at += 1
        if kind in _PLAIN_ESCAPES:
            return _PLAIN_ESCAPES[kind]
        digits = self._text[self._at : self._at + _HEX_DIGITS.get(kind, 0)]
        if not digits or not re.fullmatch("[0-9a-fA-F]+", digits):
            raise self._problem(f"there is no escape \\{kind}")
        self._at += len(digits)
        code = int(digits, 16)
        if code > _LAST_CODEPOINT or 0xD800 <= code < 0xE000:
            raise self._problem(f"U+{code:X} is no character")
        return chr(code)

    def _next(self) -> str:
        return self._text[self._at : self._at + 1]

    def _match(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        found = pattern.match(self._text, self._at)
        if found is not None:
            self._at = found.end()
        return found

    def _space(self, *, lines: bool) -> None:
        """Skip blanks and comments, and with ``lines`` line breaks."""
        while symbol := self._next():
            if symbol == "#":
                end = re.compile(r"[\r\n]|\Z").search(self._text, self._at)
                self._at = end.start() if end else len(self._text)
            elif symbol in " \t" or (lines and symbol in "\r\n"):
                self._at += 1
            else:
                return

    def _problem(self, problem: str) -> ConstraintError:
        line = self._text.count("\n", 0, self._at) + 1
        return ConstraintError(f"the GBNF grammar cannot be enforced: {problem} (line {line})")


def _rule_name(name: str) -> str:
    """A name of Lark's: small letters, no hyphens. Different names stay different."""
    spelled = "".join(
        each if each.islower() or each.isdigit() else f"_{ord(each):x}_" for each in name
    )
    return f"r_{spelled}"


def _codepoint(character: str) -> str:
    return f"\\x{{{ord(character):x}}}"

"""Writing grammars in llguidance's variant of Lark's syntax.

Syntax: https://github.com/guidance-ai/llguidance/blob/main/docs/syntax.md. Only the text is made
here; whoever decodes compiles it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mofa_gguf.chat.cursor import NUMBER
from mofa_gguf.chat.errors import CallsNotDescribable

# What llguidance shall do with an embedded schema: exactly what it says, spelled as templates do.
_JSON_OPTIONS = {
    "lenient": False,
    "coerce_one_of": False,
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
}
_ANNOTATIONS = frozenset(
    {"type", "title", "description", "default", "examples", "deprecated", "$comment"}
)
_TEXT_KEYWORDS = frozenset({"enum", "const", "minLength", "maxLength", "pattern"})


class Lark:
    """A grammar in the making.

    ``tokens`` are texts that stand for control tokens, with their ids. ``prompt`` is what was
    written already; ``written``, if it is given, is what the model itself has written of a call.
    """

    def __init__(
        self,
        *,
        prompt: str = "",
        written: str | None = None,
        tokens: Mapping[str, int] | None = None,
    ) -> None:
        self._rules: list[str] = []
        self._prompt = prompt.rstrip()
        self._written = written
        self._tokens = dict(tokens or {})
        longest_first = sorted(filter(None, [*self._tokens, NUMBER]), key=len, reverse=True)
        self._pieces = re.compile(f"({'|'.join(map(re.escape, longest_first))})")

    @property
    def written(self) -> str | None:
        """What the model itself has written of the call, if it has begun one."""
        return self._written

    def literal(self, text: str) -> str:
        """Exactly this text; control tokens in it are meant as tokens, ``{number}`` as digits."""
        pieces = filter(None, self._pieces.split(text))
        return " ".join(self._piece(piece) for piece in pieces)

    def opening(self, text: str, head: str = "") -> str:
        """``text`` and ``head`` like :meth:`literal`, without what is there already.

        That is ``text`` where the prompt ends with it, and everything up to the end of what the
        model has written. Raises CallsNotDescribable where nothing begins with that.
        """
        if self._written is not None:
            _, found, rest = (text + head).partition(self._written)
            if not found:
                raise CallsNotDescribable(f"a call that begins with {self._written!r}")
            return self.literal(rest)
        word = text.strip()
        if word and self._prompt.endswith(word):
            return self.literal(head)
        return self.literal(text + head)

    def json(self, schema: Mapping[str, Any]) -> str:
        """JSON that is valid under a schema."""
        return f"%json {json.dumps({**schema, 'x-guidance': _JSON_OPTIONS})}"

    def text(self, schema: Mapping[str, Any], end: str, *, without: Iterable[str] = ()) -> str:
        """Text that is valid as a string under a schema, and ``end`` behind it.

        The text never holds the words of ``end``, nor any of ``without``.
        Raises CallsNotDescribable for a schema that says more than Lark can.
        """
        unknown = sorted(set(schema) - _ANNOTATIONS - _TEXT_KEYWORDS)
        if unknown:
            raise CallsNotDescribable(f"text under the JSON schema keyword {unknown[0]!r}")
        forbidden = [*end.split()[:1], *without]
        choices = schema.get("enum", [schema["const"]] if "const" in schema else None)
        if choices is not None:
            spelled = [c if isinstance(c, str) else json.dumps(c) for c in choices]
            if any(word in choice for word in forbidden for choice in spelled):
                raise CallsNotDescribable(f"a text among {spelled} that holds {forbidden[0]!r}")
            literals = [json.dumps(choice, ensure_ascii=False) or '""' for choice in spelled]
            return f"({' | '.join(literals)}) {self.literal(end)}"
        parts = [_any_text(schema)]
        if "pattern" in schema:
            parts.append(_pattern(schema["pattern"]))
        parts += [f"~/(?s:.*){_escaped(word)}(?s:.*)/" for word in forbidden]
        first = self._pieces.split(end)[0] if end else ""
        # One lexeme as far as it is text, so that it ends at the first end there is.
        spelled_end = f" {json.dumps(first, ensure_ascii=False)}" if first else ""
        name = f"TEXT_{len(self._rules)}"
        self._rules.append(f"{name}: ({' & '.join(parts)}){spelled_end}")
        return f"{name} {self.literal(end[len(first) :])}".rstrip()

    def terminal(self, expression: str) -> str:
        """The name of a new terminal."""
        name = f"TERMINAL_{len(self._rules)}"
        self._rules.append(f"{name}: {expression}")
        return name

    def any_of(self, alternatives: Iterable[str]) -> str:
        """The name of a new rule: one of these expressions."""
        expression = " | ".join(alternatives)  # which may make rules of their own
        name = f"rule_{len(self._rules)}"
        self._rules.append(f"{name}: {expression}")
        return name

    def separated(self, items: Sequence[tuple[bool, str]], separator: str) -> str:
        """Expressions in this order with a separator between; only those marked must be there."""
        # Written from the end: what may follow an item, and what may be the first of all.
        following, leading = "", ""
        comma = self.literal(separator)
        for required, item in reversed(items):
            here = f"{item} {following}".strip()
            if required:
                following, leading = f"{comma} {here}", here
            else:
                following = self._optional(f"{comma} {here}", following)
                leading = self._optional(here, leading)
        return leading

    def _optional(self, present: str, absent: str) -> str:
        return self.any_of([present, absent]) if absent else f"({present})?"

    def grammar(self, start: str) -> str:
        """The whole grammar."""
        return "\n".join([f"start: {start}", *self._rules, ""])

    def _piece(self, piece: str) -> str:
        if piece == NUMBER:
            return "/[0-9]{1,2}/"
        if piece in self._tokens:
            return f"<[{self._tokens[piece]}]>"
        return json.dumps(piece, ensure_ascii=False)


def repeated(first: str, between: str, later: str, *, parallel: bool) -> str:
    """``first``, and with ``parallel`` any number of ``later`` behind it."""
    if not parallel:
        return first
    return f"{first} ({between} {later})*"


def _any_text(schema: Mapping[str, Any]) -> str:
    low, high = schema.get("minLength", 0), schema.get("maxLength")
    if low == 0 and high is None:
        return "/(?s:.*)/"
    return f"/(?s:.{{{low},{'' if high is None else high}}})/"


def _pattern(pattern: str) -> str:
    """A JSON schema's pattern, which may match anywhere, as a regular expression for the whole."""
    inner = pattern.removeprefix("^")
    anchored_end = inner.endswith("$") and not inner.endswith("\\$")
    inner = inner[:-1] if anchored_end else inner
    outside = re.sub(r"\\.|\[\^?\]?(?:\\.|[^\]])*\]", "", inner)
    while (shorter := re.sub(r"\((?!\?[=!<])[^()]*\)", "", outside)) != outside:
        outside = shorter
    if re.search(r"[\^$|]|\(\?", outside) or re.search(r"\\[bB1-9]", inner):
        raise CallsNotDescribable(f"text under the pattern {pattern!r}")
    body = re.sub(r"(?<!\\)/", r"\\/", inner)
    start = "" if pattern.startswith("^") else "(?s:.*)"
    return f"/{start}({body}){'' if anchored_end else '(?s:.*)'}/"


def _escaped(text: str) -> str:
    """A text as a regular expression between slashes."""
    return re.sub(r"([\\.+*?()|\[\]{}^$/])", r"\\\1", text).replace("\n", "\\n")

"""Grammars as llguidance reads them, made from schemas, patterns, Lark and GBNF.

Only the texts are made here; :mod:`mofa_gguf.engine.structure.constraint` compiles them for a
vocabulary.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import llguidance

from mofa_gguf.engine.errors import ConstraintError
from mofa_gguf.engine.structure.gbnf import lark_of
from mofa_gguf.engine.structure.schema_check import check_schema

JsonSchema = Mapping[str, Any] | bool
Whitespace = Literal["short", "compact", "free"]

# Between JSON's tokens: a space, or a line break with its indentation ("short"); nothing; anything
# that JSON allows there. A model that has nothing to say goes on with line breaks for ever where it
# is free to.
_WHITESPACE: dict[Whitespace, str | None] = {
    "short": r" |\r?\n[ \t]{0,32}",
    "compact": None,
    "free": r"[ \t\r\n]+",
}
_MAX_CHARS = 500_000
_RULE = re.compile(r"^[ \t]*[?!]?\w+[^:\n\"/]*:", re.MULTILINE)
_REFERENCE = re.compile(r'"\$ref"')
_SURROGATE = re.compile("[\ud800-\udfff]")
_CONTENT = "content"


@dataclass(frozen=True)
class Grammar:
    """A grammar in llguidance's own form; ``what`` is what it is called in errors."""

    text: str
    what: str = "the grammar"


def json_schema(schema: JsonSchema | str, *, whitespace: Whitespace = "short") -> Grammar:
    """JSON that is valid under a JSON Schema (a mapping, a bool, or its JSON text).

    Properties come in the schema's order. Raises ConstraintError naming what cannot be enforced
    (``not``, ``uniqueItems``, an unknown format) and where it stands.
    """
    what = "the JSON schema"
    try:
        if isinstance(schema, str):
            _check_size(schema, what)
            schema = json.loads(schema)
        if schema is False:
            raise ConstraintError("the JSON schema cannot be enforced: nothing satisfies false")
        text = "{}" if schema is True else json.dumps(schema)
        _check_size(text, what)
        check_schema(schema)
        # A schema may carry options of llguidance's own ("x-guidance"); ours stand above them.
        grammar = llguidance.LLMatcher.grammar_from_json_schema(
            text,
            overrides={
                "lenient": False,
                "coerce_one_of": False,
                "whitespace_flexible": whitespace != "compact",
                "whitespace_pattern": _WHITESPACE[whitespace],
                "item_separator": ",",
                "key_separator": ":",
            },
        )
    except (TypeError, ValueError, RecursionError) as error:
        raise ConstraintError(f"this is no JSON schema: {_one_line(error)}") from error
    return Grammar(grammar, what)


def regex(pattern: str) -> Grammar:
    """Text that matches a regular expression as a whole (the syntax of Rust's regex crate)."""
    what = "the regular expression"
    _check_text(pattern, what)
    return Grammar(llguidance.LLMatcher.grammar_from_regex(pattern), what)


def lark(text: str, *, n_rules_max: int = 800) -> Grammar:
    """Text of a grammar in llguidance's variant of Lark's syntax, from its rule ``start``.

    llguidance follows chains of rules by recursion, and thousands of them end the process: raises
    ConstraintError where there are more rules, or references in schemas, than that.
    """
    _check_text(text, "the grammar")
    for what, found in (("rules", _RULE), ("references", _REFERENCE)):
        n, most = sum(1 for _ in found.finditer(text)), n_rules_max
        if n > most:
            raise ConstraintError(f"the grammar has {n} {what}, above {most}; make it smaller")
    return Grammar(llguidance.LLMatcher.grammar_from_lark(text))


def gbnf(text: str) -> Grammar:
    """Text of a grammar in llama.cpp's GBNF, from its rule ``root``. Raises ConstraintError."""
    _check_text(text, "the GBNF grammar")
    return Grammar(lark(lark_of(text)).text, "the GBNF grammar")


def framed(frame: str, content: Grammar) -> Grammar:
    """A Lark grammar in which ``@content`` stands for another grammar.

    What goes wrong is told of the content: the frame is ours.
    """
    try:
        inner = json.loads(content.text)["grammars"][0]
    except ValueError:  # Lark is handed over as it is
        inner = {"lark_grammar": content.text}
    grammars = [{"name": "frame", "lark_grammar": frame}, {**inner, "name": _CONTENT}]
    return Grammar(json.dumps({"grammars": grammars}), content.what)


def _check_size(text: str, what: str) -> None:
    if len(text) > _MAX_CHARS:
        raise ConstraintError(
            f"{what} has {len(text)} characters, above {_MAX_CHARS}; make it smaller"
        )


def _check_text(text: str, what: str) -> None:
    _check_size(text, what)
    if not text.isascii() and (found := _SURROGATE.search(text)):
        raise ConstraintError(
            f"{what} has half a surrogate pair ({found[0]!r}) at {found.start()}, which no text "
            "can be written with; send the whole character"
        )


def _one_line(problem: object) -> str:
    return " ".join(str(problem).split())

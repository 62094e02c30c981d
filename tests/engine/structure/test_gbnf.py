"""GBNF grammars: exactly the texts they describe, no matter how their terminals overlap."""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import product

import pytest

from mofa_gguf.engine.errors import ConstraintError
from mofa_gguf.engine.structure.constraint import ConstraintFactory
from mofa_gguf.engine.structure.gbnf import lark_of
from mofa_gguf.engine.tokens.vocab import Vocab

LETTERS = "abc"
MAX_LENGTH = 5
TEXTS = ["".join(text) for n in range(MAX_LENGTH + 1) for text in product(LETTERS, repeat=n)]


def accepts(factory: ConstraintFactory, vocab: Vocab, grammar: str, text: str) -> bool:
    constraint = factory.gbnf(grammar)
    for token in vocab.tokenize(text):
        if not constraint.fits([token]):
            return False
        constraint.accept(token)
    return constraint.may_stop


@dataclass(frozen=True)
class Made:
    """A grammar made at random, and the texts (of at most MAX_LENGTH letters) it describes."""

    gbnf: str
    texts: frozenset[str]


def make(rng: random.Random, depth: int = 0) -> Made:
    """A random expression; its texts follow from how it is put together."""
    kind = rng.choice(["text", "class"] if depth > 2 else ["text", "class", "or", "then", "times"])
    if kind == "text":
        text = "".join(rng.choices(LETTERS, k=rng.randint(0, 2)))
        return Made(f'"{text}"', frozenset({text}))
    if kind == "class":
        first, last = sorted(rng.choices(LETTERS, k=2))
        inside = frozenset(each for each in LETTERS if first <= each <= last)
        if rng.random() < 0.3 and inside != frozenset(LETTERS):
            return Made(f"[^{first}-{last}d-\\U0010FFFF\\x00-`]", frozenset(LETTERS) - inside)
        return Made(f"[{first}-{last}]", inside)
    one, two = make(rng, depth + 1), make(rng, depth + 1)
    if kind == "or":
        return Made(f"({one.gbnf} | {two.gbnf})", one.texts | two.texts)
    if kind == "then":
        return Made(f"{one.gbnf} {two.gbnf}", joined(one.texts, two.texts))
    low, high, mark = rng.choice(
        [(0, 1, "?"), (0, 9, "*"), (1, 9, "+"), (2, 2, "{2}"), (1, 2, "{1,2}"), (0, 2, "{,2}")]
    )
    texts: frozenset[str] = frozenset({""})
    found: frozenset[str] = frozenset()
    for n in range(high + 1):
        found |= texts if n >= low else frozenset()
        texts = joined(texts, one.texts)
    return Made(f"({one.gbnf}){mark}", found)


def joined(heads: frozenset[str], tails: frozenset[str]) -> frozenset[str]:
    return frozenset(h + t for h in heads for t in tails if len(h + t) <= MAX_LENGTH)


@pytest.mark.parametrize("seed", range(20))
def test_a_random_grammar_takes_its_texts_and_no_others(
    factory: ConstraintFactory, vocab: Vocab, seed: int
) -> None:
    rng = random.Random(seed)
    made = make(rng)
    while made.texts <= {""}:
        made = make(rng)
    grammar = f"root ::= {made.gbnf}"
    tried = [*rng.sample(sorted(made.texts), min(8, len(made.texts))), *rng.sample(TEXTS, 12)]
    for text in tried:
        assert accepts(factory, vocab, grammar, text) == (text in made.texts), (grammar, text)


CASES = [
    ('root ::= ("a" | "ab") "bc"', ["abc", "abbc"], ["ab", "abb", "bc"]),
    ('root ::= [a-z]* "b"', ["b", "abcb", "bb"], ["", "a"]),
    ('root ::= "(" root? ")"', ["()", "((()))"], ["(", "())"]),
    ('root ::= a-b a-b2\na-b ::= "x"\na-b2 ::= "y"', ["xy"], ["xx", "x"]),
    ('root ::= "é\\x41\\u00e9\\n\\"\\\\"', ['éAé\n"\\'], ["é"]),
    ('root ::= [^"\\n\\]\\-] .', ["a\n", "é日"], ["]a", "-a", '"a', "\na", "a"]),
    ('# one\nroot ::= # two\n  x\n\nx ::= (\n  "a" |\n  "b"\n)\n', ["a", "b"], ["ab"]),
    ('root ::= "a" | ', ["a", ""], ["aa"]),
    ('root ::= root "a" | "b"', ["b", "baa"], ["a", "ab"]),
    ('root ::= "a"{2,3} "b"{0}', ["aa", "aaa"], ["a", "aaaa", "aab"]),
]


@pytest.mark.parametrize(("grammar", "texts", "others"), CASES, ids=lambda each: str(each)[:30])
def test_every_notation_is_read(
    factory: ConstraintFactory, vocab: Vocab, grammar: str, texts: list[str], others: list[str]
) -> None:
    for text in texts:
        assert accepts(factory, vocab, grammar, text), text
    for text in others:
        assert not accepts(factory, vocab, grammar, text), text


@pytest.mark.parametrize(
    ("grammar", "problem"),
    [
        ("", "there is no rule 'root'"),
        ('start ::= "a"', "there is no rule 'root'"),
        ("root ::= x", "there is no rule 'x'"),
        ('root ::= "a"\nroot ::= "b"', r"'root' is defined twice \(line 2\)"),
        ('root ::= "a', "ends inside a text"),
        ("root ::= [a", "ends inside a text"),
        ("root ::= []", "matches nothing"),
        ("root ::= [b-a]", "range b-a is empty"),
        ('root ::= ("a"', r"'\)' is missing"),
        ('root ::= "a" )', r"'\)' cannot stand here"),
        ('root ::= "\\q"', r"no escape \\q"),
        ('root ::= "\\ud800"', "no character"),
        ('root ::= "a"{3,2}', "more than it allows"),
        ('root ::= "a"{,}', None),
        ('root ::= "a"{x}', "a repetition is written"),
        ("root ::= !<[5]>", "excluded"),
        ("root ::= <", "a token is written"),
        ("root = 1", "a rule like"),
        ("root ::= " + "(" * 5000, "nested too deeply"),
    ],
)
def test_what_is_no_grammar_is_refused_with_its_line(grammar: str, problem: str | None) -> None:
    if problem is None:
        assert lark_of(grammar)
        return
    with pytest.raises(ConstraintError, match=problem):
        lark_of(grammar)


def test_tokens_are_meant_as_tokens(factory: ConstraintFactory, vocab: Vocab) -> None:
    constraint = factory.gbnf(
        'root ::= <[257]> "a" <</tool_call>>'.replace("<</", "</").replace(">>", ">")
    )
    tokens = vocab.tokenize("<tool_call>a</tool_call>", parse_special=True)
    assert tokens[0] == 257
    assert constraint.fits(tokens)

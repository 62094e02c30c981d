"""Constraints: whatever the logits say, what comes out is what was asked for."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from mofa_gguf.engine.errors import ConstraintError
from mofa_gguf.engine.structure.constraint import Constraint, ConstraintFactory
from mofa_gguf.engine.tokens.vocab import Vocab
from mofa_gguf.engine.tokens.vocab_file import VocabFile
from tests.support.tiny_vocab import write_word_vocab

WORDS = [
    *('{"', '":', '","', '"}', "{", "}", "[", "]", ",", ":", '"', "▁", "▁the", "true", "false"),
    *("null", "city", "name", "12", "0", "é", "日本", "]}", '":"', "e", "1", "\\", "▁▁"),
]
BOS, EOS, END_OF_TURN, UNUSED = 1, 2, 3, 4
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 6},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "kind": {"enum": ["très long", "kurz", None]},
        "tags": {"type": "array", "items": {"type": "boolean"}, "maxItems": 3},
        "where": {"$ref": "#/$defs/place"},
    },
    "required": ["name", "age", "kind", "tags", "where"],
    "additionalProperties": False,
    "$defs": {
        "place": {
            "type": "object",
            "properties": {"city": {"type": "string", "pattern": "^[a-z]{1,4}$"}},
            "required": ["city"],
            "additionalProperties": False,
        }
    },
}


@pytest.fixture(scope="module")
def vocab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vocab]:
    """A vocabulary of control tokens, all bytes and a few words."""
    kind = gguf.TokenType
    specials = [("<|end_of_turn|>", kind.CONTROL), ("[unused]", kind.UNUSED)]
    path = write_word_vocab(tmp_path_factory.mktemp("vocab") / "tiny.gguf", WORDS, specials)
    with VocabFile(path) as file:
        yield file.vocab


@pytest.fixture(scope="module")
def factory(vocab: Vocab) -> ConstraintFactory:
    return ConstraintFactory(vocab, eos=[EOS, END_OF_TURN])


def sample(
    constraint: Constraint, vocab: Vocab, rng: np.random.Generator, *, force: bool = False
) -> str:
    """What random logits give under a constraint."""
    tokens: list[int] = []
    while not constraint.stopped:
        assert len(tokens) < 2000
        forced = constraint.forced() if force else []
        for token in forced:
            constraint.accept(token)
        tokens += forced
        if forced:
            continue
        logits = rng.normal(size=vocab.n_tokens).astype(np.float32)
        constraint.mask(logits)
        token = int(logits.argmax())
        assert np.isfinite(logits[token])
        constraint.accept(token)
        if token in (EOS, END_OF_TURN):
            break
        tokens.append(token)
    return b"".join(vocab.piece(token) for token in tokens).decode("utf-8")


def check_person(text: str) -> None:
    person = json.loads(text)
    assert list(person) == ["name", "age", "kind", "tags", "where"]
    assert len(person["name"]) <= 6
    assert person["age"] in range(121)
    assert person["kind"] in ("très long", "kurz", None)
    assert all(isinstance(tag, bool) for tag in person["tags"])
    assert len(person["tags"]) <= 3
    assert re.fullmatch("[a-z]{1,4}", person["where"]["city"])


@pytest.mark.parametrize("force", [False, True])
def test_a_hundred_random_outputs_obey_the_schema(
    factory: ConstraintFactory, vocab: Vocab, force: bool
) -> None:
    rng = np.random.default_rng(7)
    for n in range(100):
        constraint = factory.json_schema(PERSON, compact=n % 2 == 0)
        text = sample(constraint, vocab, rng, force=force)
        check_person(text)
        if n % 2 == 0:
            outside_strings = re.sub(r'"(?:\\.|[^"\\])*"', '""', text)
            assert not re.search(r"\s", outside_strings)


@pytest.mark.parametrize("name", ["llama-spm", "qwen2", "gpt-2"])
def test_random_outputs_of_real_vocabularies_obey_the_schema(shared_data: Path, name: str) -> None:
    with VocabFile(shared_data / "vocab" / f"ggml-vocab-{name}.gguf") as file:
        vocab = file.vocab
        assert vocab.eos is not None
        factory = ConstraintFactory(vocab, eos=vocab.eos)
        rng = np.random.default_rng(7)
        for n in range(10):
            constraint = factory.json_schema(PERSON, compact=True)
            check_person(sample(constraint, vocab, rng, force=n % 2 == 0))


def test_forced_tokens_are_those_that_the_tokenizer_itself_would_take(
    factory: ConstraintFactory, vocab: Vocab
) -> None:
    constraint = factory.json_schema(PERSON, compact=True)
    forced = constraint.forced()
    text = b"".join(vocab.piece(token) for token in forced)
    assert text
    assert b'{"name":"'.startswith(text)


def test_a_json_object_is_an_object(factory: ConstraintFactory, vocab: Vocab) -> None:
    constraint = factory.json_object(compact=True)
    assert allowed_text(constraint, vocab) <= {b"{", b'{"'}
    for token in vocab.tokenize('{"city":[12,null,{"name":"é"}]}')[1:]:
        logits = np.zeros(vocab.n_tokens, dtype=np.float32)
        constraint.mask(logits)
        assert logits[token] == 0
        constraint.accept(token)
    assert constraint.stopped


def test_the_output_may_end_exactly_where_it_is_valid(
    factory: ConstraintFactory, vocab: Vocab
) -> None:
    constraint = factory.regex("[0-9]{2,3}")
    assert ends_allowed(constraint, vocab) == set()
    for digit in b"12":
        constraint.accept(byte_token(digit))
    assert (constraint.may_stop, constraint.stopped) == (True, False)
    assert ends_allowed(constraint, vocab) == {EOS, END_OF_TURN}
    constraint.accept(byte_token(ord("3")))
    assert constraint.stopped
    logits = np.zeros(vocab.n_tokens, dtype=np.float32)
    constraint.mask(logits)
    assert set(np.flatnonzero(np.isfinite(logits))) == {EOS, END_OF_TURN}


@pytest.mark.parametrize("end", [EOS, END_OF_TURN])
def test_any_end_of_generation_may_be_accepted(factory: ConstraintFactory, end: int) -> None:
    constraint = factory.regex("a+")
    constraint.accept(byte_token(ord("a")))
    constraint.accept(end)
    assert constraint.stopped


def test_tokens_without_text_never_get_into_the_output(
    factory: ConstraintFactory, vocab: Vocab
) -> None:
    constraint = factory.regex("(.|\n)*")
    logits = np.zeros(vocab.n_tokens, dtype=np.float32)
    constraint.mask(logits)
    assert not np.isfinite(logits[[0, BOS, UNUSED]]).any()
    assert np.isfinite(logits[byte_token(ord("<"))])


def test_logits_beyond_the_vocabulary_are_masked(factory: ConstraintFactory, vocab: Vocab) -> None:
    logits = np.zeros(vocab.n_tokens + 7, dtype=np.float32)
    factory.regex(".*").mask(logits)
    assert np.isneginf(logits[vocab.n_tokens :]).all()
    assert np.isfinite(logits).any()


def test_schemas_can_be_given_as_json_text_or_true(
    factory: ConstraintFactory, vocab: Vocab
) -> None:
    rng = np.random.default_rng(5)
    schemas: list[Any] = [json.dumps(PERSON), PERSON]
    for schema in schemas:
        check_person(sample(factory.json_schema(schema, compact=True), vocab, rng))
    free: list[Any] = [True, "true", {}]
    for schema in free:
        assert b"[" in allowed_text(factory.json_schema(schema), vocab)


def test_a_lark_grammar(factory: ConstraintFactory, vocab: Vocab) -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        constraint = factory.lark('start: "yes" | "no" " "? NUMBER\nNUMBER: /[0-9]{1,2}/')
        assert re.fullmatch("yes|no ?[0-9]{1,2}", sample(constraint, vocab, rng))


def test_a_token_that_is_not_allowed_is_an_error(factory: ConstraintFactory) -> None:
    with pytest.raises(ConstraintError):
        factory.regex("a").accept(byte_token(ord("b")))


def test_constraints_of_one_schema_are_independent(
    factory: ConstraintFactory, vocab: Vocab
) -> None:
    first, second = factory.regex("ab"), factory.regex("ab")
    first.accept(byte_token(ord("a")))
    assert allowed_text(first, vocab) == {b"b"}
    assert allowed_text(second, vocab) == {b"a"}


def test_constraints_can_be_made_in_many_threads(vocab: Vocab) -> None:
    factory = ConstraintFactory(vocab, eos=EOS)
    failed: list[BaseException] = []

    def work(n: int) -> None:
        try:
            rng = np.random.default_rng(n)
            for _ in range(5):
                check_person(sample(factory.json_schema(PERSON, compact=True), vocab, rng))
        except BaseException as error:  # noqa: BLE001 - handed to the main thread
            failed.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


@pytest.mark.parametrize(
    ("schema", "named"),
    [
        ({"not": {"type": "string"}}, "not"),
        ({"type": "array", "uniqueItems": True}, "uniqueItems"),
        ({"type": "array", "contains": {}}, "contains"),
        ({"if": {}, "then": {}, "else": {}}, "if"),
        ({"type": "object", "dependentRequired": {"a": ["b"]}}, "dependentRequired"),
        ({"type": "object", "propertyNames": {"pattern": "^a"}}, "propertyNames"),
        ({"type": "object", "unevaluatedProperties": False}, "unevaluatedProperties"),
        ({"oneOf": [{"type": "number"}, {"type": "integer"}]}, "oneOf"),
        ({"type": "string", "format": "colour"}, "colour"),
        ({"type": "string", "pattern": "(?=a)b"}, "look-around"),
        ({"$ref": "#/$defs/missing"}, "missing"),
        ({"$ref": "https://example.org/schema"}, "example.org"),
        ({"type": "text"}, "text"),
        ({"type": "integer", "minimum": 5, "maximum": 3}, "minimum"),
        ({"enum": []}, "anyOf is empty"),
        (False, "nothing satisfies"),
        ({"not": {}, "x-guidance": {"lenient": True}}, "not"),
        (
            {
                "oneOf": [{"type": "number"}, {"type": "integer"}],
                "x-guidance": {"coerce_one_of": True},
            },
            "oneOf",
        ),
    ],
)
def test_what_cannot_be_enforced_is_refused_by_name(
    factory: ConstraintFactory, schema: Any, named: str
) -> None:
    with pytest.raises(ConstraintError, match=named) as caught:
        factory.json_schema(schema)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("schema", ["{", "[1]", '"text"', {"type": {1}}])
def test_what_is_no_schema_is_refused(factory: ConstraintFactory, schema: Any) -> None:
    with pytest.raises(ConstraintError):
        factory.json_schema(schema)


@pytest.mark.parametrize("pattern", ["(", "(?=a)", "[z-a]", "(?<name"])
def test_a_broken_pattern_is_refused(factory: ConstraintFactory, pattern: str) -> None:
    with pytest.raises(ConstraintError, match="the regular expression cannot be enforced"):
        factory.regex(pattern)


@pytest.mark.parametrize("grammar", ["", "start: missing", "start ->", 'start: "a', "x: /a/"])
def test_a_broken_grammar_is_refused(factory: ConstraintFactory, grammar: str) -> None:
    with pytest.raises(ConstraintError, match="the grammar cannot be enforced"):
        factory.lark(grammar)


def test_a_broken_line_of_many_characters_is_not_repeated_whole(factory: ConstraintFactory) -> None:
    with pytest.raises(ConstraintError, match=r"the grammar cannot be enforced: .*999") as caught:
        factory.lark("9" * 5000)
    assert len(str(caught.value)) < 1000


def deep_schema() -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(100_000):
        schema = {"type": "array", "items": schema}
    return schema


@pytest.mark.parametrize(
    "schema",
    [
        {"enum": [f"value {n}" for n in range(100_000)]},
        {"type": "object", "properties": {f"p{n}": {"type": "string"} for n in range(20_000)}},
        deep_schema(),
    ],
    ids=["huge enum", "huge object", "deep"],
)
def test_schemas_beyond_all_measure_are_refused_in_time(
    factory: ConstraintFactory, schema: Any
) -> None:
    begin = time.thread_time()
    with pytest.raises(ConstraintError):
        factory.json_schema(schema)
    assert time.thread_time() - begin < 2.0


@pytest.mark.parametrize(
    "pattern", ["((a+)+)+b", "[ab]*a[ab]{20}", "(a{1,1000}){1,1000}", "(x+x+)+y", "(.*a){30}"]
)
def test_catastrophic_patterns_are_followed_or_given_up_in_time(
    factory: ConstraintFactory, vocab: Vocab, pattern: str
) -> None:
    rng = np.random.default_rng(1)
    begin = time.thread_time()
    try:
        constraint = factory.regex(pattern)
        for _ in range(40):
            if constraint.stopped:
                break
            logits = rng.normal(size=vocab.n_tokens).astype(np.float32)
            constraint.mask(logits)
            constraint.accept(int(logits.argmax()))
    except ConstraintError as error:
        assert "any further" in str(error) or "enforced" in str(error)
    assert time.thread_time() - begin < 2.0


@pytest.mark.parametrize("eos", [-1, [], [1, 10**6]])
def test_ends_of_generation_must_be_in_the_vocabulary(vocab: Vocab, eos: Any) -> None:
    with pytest.raises(ConstraintError):
        ConstraintFactory(vocab, eos=eos)


def byte_token(byte: int) -> int:
    return 5 + byte


def allowed_text(constraint: Constraint, vocab: Vocab) -> set[bytes]:
    logits = np.zeros(vocab.n_tokens, dtype=np.float32)
    constraint.mask(logits)
    return {vocab.piece(int(token)) for token in np.flatnonzero(np.isfinite(logits))}


def ends_allowed(constraint: Constraint, vocab: Vocab) -> set[int]:
    logits = np.zeros(vocab.n_tokens, dtype=np.float32)
    constraint.mask(logits)
    return {EOS, END_OF_TURN} & {int(token) for token in np.flatnonzero(np.isfinite(logits))}

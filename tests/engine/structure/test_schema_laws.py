"""Whatever schema: it is refused, or all that comes out under it is valid under it."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator

from mofa_gguf.engine.errors import ConstraintError
from mofa_gguf.engine.structure.constraint import Constraint, ConstraintFactory
from mofa_gguf.engine.tokens.vocab import Vocab
from tests.support.random_schemas import RandomSchemas
from tests.support.tiny_vocab import EOS

N_SCHEMAS, N_SAMPLES, MAX_TOKENS = 40, 3, 200


def sample(constraint: Constraint, vocab: Vocab, rng: np.random.Generator) -> str | None:
    """What random logits give, with some liking for what ends things; None when it gets long."""
    liking = np.zeros(vocab.n_tokens, dtype=np.float32)
    liking[list(b'"}]')], liking[EOS], liking[128:256] = 1.0, 3.0, -3.0
    tokens: list[int] = []
    while not constraint.stopped:
        if len(tokens) > MAX_TOKENS:
            return None
        logits = liking + rng.normal(size=vocab.n_tokens).astype(np.float32)
        constraint.mask(logits)
        token = int(logits.argmax())
        assert np.isfinite(logits[token])
        if token == EOS:
            break
        constraint.accept(token)
        tokens.append(token)
    return b"".join(vocab.piece(token) for token in tokens).decode("utf-8")


@pytest.mark.parametrize("seed", range(8))
def test_what_comes_out_under_a_schema_is_valid_under_it(
    factory: ConstraintFactory, vocab: Vocab, seed: int
) -> None:
    schemas, rng = RandomSchemas(seed), np.random.default_rng(seed)
    n_valid = 0
    for _ in range(N_SCHEMAS):
        schema = schemas.schema()
        try:
            constraint = factory.json_schema(schema, compact=True)
        except ConstraintError:
            continue
        for _ in range(N_SAMPLES):
            text = sample(constraint.copy(), vocab, rng)
            if text is None:
                continue
            problems = list(Draft202012Validator(schema).iter_errors(json.loads(text)))
            assert not problems, (schema, text)
            n_valid += 1
    assert n_valid > N_SCHEMAS


STRING = {"type": "string"}
REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"not": STRING}, "not", "#"),
    ({"properties": {"a": {"uniqueItems": True}}}, "uniqueItems", "#/properties/a"),
    ({"items": {"contains": STRING}}, "contains", "#/items"),
    ({"prefixItems": [{}, {"minContains": 1}]}, "minContains", "#/prefixItems/1"),
    ({"anyOf": [{}, {"if": {}}]}, "if", "#/anyOf/1"),
    ({"dependentSchemas": {}}, "dependentSchemas", "#"),
    ({"dependentRequired": {}}, "dependentRequired", "#"),
    ({"dependencies": {}}, "dependencies", "#"),
    ({"propertyNames": {}}, "propertyNames", "#"),
    ({"unevaluatedProperties": False}, "unevaluatedProperties", "#"),
    ({"unevaluatedItems": False}, "unevaluatedItems", "#"),
    ({"additionalProperties": {"$dynamicRef": "#x"}}, "dynamicRef", "#/additionalProperties"),
    ({"$recursiveRef": "#"}, "recursiveRef", "#"),
    ({"$ref": "#/$defs/x", "$defs": {"x": {"not": {}}}}, "not", "#/$defs/x"),
    ({"patternProperties": {"a/b": {"not": {}}}}, "not", "#/patternProperties/a~1b"),
    ({"properties": {"a": {"type": "string", "format": "colour"}}}, "colour", "#/properties/a"),
    ({"format": "idn-email"}, "idn-email", "#"),
    ({"type": ["string", "null"], "format": "unknown"}, "unknown", "#"),
    ({"minimum": 1, "exclusiveMinimum": True}, "exclusiveMinimum", "#"),
    ({"properties": {"a": {"required": True}}}, "required", "#/properties/a"),
    ({"divisibleBy": 2}, "divisibleBy", "#"),
    ({"disallow": "string"}, "disallow", "#"),
    ({"type": "number", "exclusiveMinimum": 4, "maximum": 4.5}, "between 4", "#"),
    ({"type": "number", "minimum": -0.5, "exclusiveMaximum": 0}, "between 0", "#"),
    ({"allOf": [{"exclusiveMinimum": 2}, {"maximum": 2.5}]}, "between 2", "#"),
]


@pytest.mark.parametrize(("schema", "what", "path"), REFUSED, ids=lambda each: str(each)[:40])
def test_what_cannot_be_enforced_is_named_with_its_place(
    factory: ConstraintFactory, schema: dict[str, Any], what: str, path: str
) -> None:
    with pytest.raises(ConstraintError) as caught:
        factory.json_schema(schema)
    words = str(caught.value).split()
    assert what in str(caught.value)
    assert path in words


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "integer", "$defs": {"unused": {"not": {}}}},
        {"type": "integer", "format": "int32"},  # formats are about text
        {"enum": ["not", "if"], "default": {"not": 1}, "examples": [{"contains": 1}]},
        {"properties": {"not": {"type": "integer"}, "if": {"type": "null"}}},
        {"type": "number", "exclusiveMinimum": 4, "maximum": 5.5},
    ],
)
def test_what_only_looks_like_it_is_no_matter(
    factory: ConstraintFactory, schema: dict[str, Any]
) -> None:
    factory.json_schema(schema)

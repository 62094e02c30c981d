"""Random JSON Schemas of the keywords that can be enforced, alone and in company."""

from __future__ import annotations

import random
from typing import Any

VALUES: list[Any] = [1, 1.5, "a", "abcd", None, True, {"a": 1}, [1, 2], -3]
PATTERNS = ["^[a-c]{1,3}$", "b", "^x", "[0-9]$", "a|^b", "^(?:a|b)$", "é"]
_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
_DEFINITIONS = {
    "p": {"type": "string", "maxLength": 2},
    "q": {
        "type": "object",
        "properties": {"n": {"$ref": "#/$defs/p"}},
        "additionalProperties": False,
    },
}
_LEAVES = ("string", "number", "integer", "boolean", "null", "enum", "const", "reference")
_DEEP = ("array", "object", "several", "loose", "allOf", "anyOf", "oneOf")
_MAX_DEPTH = 3


class RandomSchemas:
    """Makes schemas, the same ones for the same seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def schema(self) -> dict[str, Any]:
        """A whole schema with its definitions."""
        return {**self._part(0), "$defs": _DEFINITIONS}

    def _part(self, depth: int) -> dict[str, Any]:
        kind = self._random.choice(_LEAVES if depth >= _MAX_DEPTH else _LEAVES + _DEEP)
        if kind == "string":
            return {"type": kind, **self._some(maxLength=self._n(4), minLength=self._n(2))} | (
                self._some(0.2, pattern=self._random.choice(PATTERNS))
            )
        if kind in ("number", "integer"):
            return {"type": kind, **self._numbers()}
        if kind in ("boolean", "null"):
            return {"type": kind}
        if kind == "enum":
            values = self._random.sample(VALUES, self._random.randint(1, 4))
            return {"enum": values, **self._some(0.2, maxLength=2), **self._some(0.2, minimum=0)}
        if kind == "const":
            return {"const": self._random.choice(VALUES)}
        if kind == "reference":
            name = self._random.choice(sorted(_DEFINITIONS))
            return {"$ref": f"#/$defs/{name}", **self._some(0.3, maxLength=1)}
        if kind in ("allOf", "anyOf", "oneOf"):
            parts = [self._part(depth + 1) for _ in range(self._random.randint(1, 3))]
            return {kind: parts, **self._some(0.2, type=self._random.choice(("string", "object")))}
        return self._container(kind, depth)

    def _container(self, kind: str, depth: int) -> dict[str, Any]:
        if kind == "several":
            types = self._random.sample(["string", "integer", "null", "boolean", "array"], 2)
            return {"type": types, "maxLength": 2, "maxItems": 1}
        if kind == "loose":  # keywords that count for one type each
            return self._some(minLength=2, minimum=5, minItems=1, maxLength=1, maxProperties=1)
        if kind == "array":
            return {
                "type": kind,
                "maxItems": self._n(3),
                **self._some(0.7, items=self._part(depth + 1)),
                **self._some(0.3, prefixItems=[self._part(depth + 1)], minItems=self._n(2)),
            }
        names = self._random.sample("abcd", self._random.randint(0, 3))
        return {
            "type": kind,
            "properties": {name: self._part(depth + 1) for name in names},
            **self._some(0.6, required=self._random.sample("abcde", self._random.randint(0, 3))),
            **self._some(0.7, additionalProperties=self._random.choice((False, {"type": "null"}))),
            **self._some(0.2, patternProperties={"^x": self._part(depth + 1)}),
            **self._some(0.2, minProperties=self._n(2), maxProperties=self._n(3)),
        }

    def _numbers(self) -> dict[str, Any]:
        bounds = {name: self._random.randint(-9, 9) for name in _BOUNDS}
        halves = {name: value + self._random.choice((0, 0, 0.5)) for name, value in bounds.items()}
        return self._some(0.3, **halves) | self._some(0.2, multipleOf=self._random.choice((2, 0.5)))

    def _n(self, most: int) -> int:
        return self._random.randint(0, most)

    def _some(self, chance: float = 0.4, **keywords: Any) -> dict[str, Any]:
        return {key: each for key, each in keywords.items() if self._random.random() < chance}

"""What a JSON Schema asks for and no token mask can enforce, found before it is compiled.

llguidance refuses most of it itself, but does not say where it stands; some it would pass over in
silence (keywords of older drafts, formats it calls "unknown", some pairs of bounds). Only what can
be reached from the root counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import inf, isfinite, trunc
from typing import Any

from mofa_gguf.engine.errors import ConstraintError

# Keywords that constrain a value in a way that llguidance does not follow, of all drafts.
_UNENFORCEABLE = frozenset(
    {
        *("not", "if", "then", "else", "uniqueItems", "contains", "minContains", "maxContains"),
        *("dependentSchemas", "dependentRequired", "dependencies", "propertyNames"),
        *("unevaluatedProperties", "unevaluatedItems"),
        *("$dynamicRef", "$dynamicAnchor", "$recursiveRef", "$recursiveAnchor"),
        *("divisibleBy", "extends", "disallow"),  # draft 3
    }
)
FORMATS = frozenset(
    {
        *("date-time", "time", "date", "duration", "email", "hostname"),
        *("ipv4", "ipv6", "uuid", "uri"),
    }
)
"""The formats that llguidance enforces."""
# draft 4 and older: keywords whose value was of another kind.
_OLDER = {"exclusiveMinimum": bool, "exclusiveMaximum": bool, "required": bool}

_MAX_JOINED = 4
# llguidance follows chains of properties and references by recursion, and thousands of them end the
# process: 1,000 rules in a chain pass, 4,000 do not.
_MAX_PROPERTIES, _MAX_REFERENCES, _MAX_SCHEMAS = 1_000, 800, 10_000

_MAPS = ("properties", "patternProperties")
_LISTS = ("allOf", "anyOf", "oneOf", "prefixItems")
_SINGLE = ("items", "additionalProperties", "additionalItems")


def check_schema(schema: Any) -> None:
    """Raises ConstraintError naming the first keyword that cannot be enforced, and its place.

    So it does for a schema that is larger than llguidance can follow.
    """
    waiting = [("#", schema)]
    seen: set[int] = set()
    n_references = 0
    while waiting:
        path, each = waiting.pop()
        if not isinstance(each, Mapping) or id(each) in seen:
            continue
        seen.add(id(each))
        n_references += "$ref" in each
        properties = each.get("properties")
        n_properties = len(properties) if isinstance(properties, Mapping) else 0
        for what, n, most in (
            ("properties", n_properties, _MAX_PROPERTIES),
            ("references", n_references, _MAX_REFERENCES),
            ("schemas inside it", len(seen), _MAX_SCHEMAS),
        ):
            if n > most:
                raise ConstraintError(
                    f"the JSON schema cannot be enforced: it has more than {most} {what} at "
                    f"{path[:200]}; make it smaller"
                )
        _check_keywords(path, each)
        _check_bounds(path, each, schema)
        waiting += _inside(path, each, schema)


def _check_keywords(path: str, schema: Mapping[str, Any]) -> None:
    for keyword in schema:
        older = _OLDER.get(keyword)
        if keyword in _UNENFORCEABLE:
            raise _refusal(f"the keyword {keyword!r}", path)
        if older is not None and isinstance(schema[keyword], older):
            raise _refusal(f"{keyword!r} as a boolean (JSON Schema draft 4)", path)
    name, types = schema.get("format"), schema.get("type", "string")
    of_text = types == "string" or (isinstance(types, list) and "string" in types)
    if isinstance(name, str) and name not in FORMATS and of_text:
        raise _refusal(
            f"the format {name!r} (known are {', '.join(sorted(FORMATS))})",
            path,
        )


def _check_bounds(path: str, schema: Mapping[str, Any], root: Any) -> None:
    """llguidance 1.9 lets 4 through where more than 4 and at most 4.5 is asked for.

    That is, an exclusive bound that is whole, beside another one with the same whole part.
    """
    low, high = _bounds(schema, root, depth=0)
    for (edge, exclusive), (other, _) in ((low, high), (high, low)):
        whole = exclusive and edge.is_integer()
        if whole and isfinite(other) and not other.is_integer() and trunc(other) == edge:
            raise _refusal(f"the range between {edge:g}, exclusive, and {other:g}", path)


Bound = tuple[float, bool]
"""A bound of numbers, and whether it is exclusive."""


def _bounds(schema: Any, root: Any, *, depth: int) -> tuple[Bound, Bound]:
    """The narrowest bounds of a schema and all that is joined to it."""
    lows, highs = [(-inf, False)], [(inf, False)]
    if isinstance(schema, Mapping) and depth < _MAX_JOINED:
        for keyword, bounds in (("inimum", lows), ("aximum", highs)):
            for name, exclusive in ((f"m{keyword}", False), (f"exclusiveM{keyword}", True)):
                value = schema.get(name)
                if isinstance(value, (int, float)) and not isinstance(value, bool):
                    bounds.append((float(value), exclusive))
        joined = schema.get("allOf")
        inner = list(joined) if isinstance(joined, list) else []
        reference = schema.get("$ref")
        if isinstance(reference, str) and reference.startswith("#/"):
            inner.append(_resolve(reference, root))
        for each in inner:
            low, high = _bounds(each, root, depth=depth + 1)
            lows.append(low)
            highs.append(high)
    return max(lows), min(highs, key=lambda bound: (bound[0], not bound[1]))


def _refusal(what: str, path: str) -> ConstraintError:
    return ConstraintError(
        f"the JSON schema cannot be enforced: {what} at {path} has no token mask; "
        "leave it out and check the answer yourself"
    )


def _inside(path: str, schema: Mapping[str, Any], root: Any) -> Iterator[tuple[str, Any]]:
    """The schemas that a schema is made of."""
    for keyword in _MAPS:
        inner = schema.get(keyword)
        for key, each in inner.items() if isinstance(inner, Mapping) else ():
            yield f"{path}/{keyword}/{_escaped(str(key))}", each
    for keyword in _LISTS:
        inner = schema.get(keyword)
        for n, each in enumerate(inner if isinstance(inner, list) else ()):
            yield f"{path}/{keyword}/{n}", each
    for keyword in _SINGLE:
        inner = schema.get(keyword)
        if isinstance(inner, list):
            for n, each in enumerate(inner):
                yield f"{path}/{keyword}/{n}", each
        else:
            yield f"{path}/{keyword}", inner
    reference = schema.get("$ref")
    if isinstance(reference, str) and reference.startswith("#/"):
        yield reference, _resolve(reference, root)


def _resolve(reference: str, root: Any) -> Any:
    found = root
    for part in reference[2:].split("/"):
        key = part.replace("~1", "/").replace("~0", "~")
        if isinstance(found, list) and key.isdecimal() and int(key) < len(found):
            found = found[int(key)]
        elif isinstance(found, Mapping):
            found = found.get(key)
        else:
            return None
    return found


def _escaped(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")

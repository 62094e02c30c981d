"""Argument values that a format writes as bare text, typed by the tool's JSON schema.

A string stays the text it is; anything else is read as JSON, or as Python prints it, which some
templates do. What does not fit the schema stays text: arguments are valid JSON either way.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

from mofa_gguf.chat.formats.base import dump_json, load_json

ALL_TYPES = frozenset({"string", "number", "integer", "boolean", "null", "object", "array"})
_PYTHON = {"True": True, "False": False, "None": None}
_MAX_DEPTH = 16
_MAX_PYTHON_CHARS = 100_000


def property_schema(parameters: Any, key: str) -> Any:
    """The schema of one argument inside a tool's schema; True (anything) where there is none."""
    if not isinstance(parameters, Mapping):
        return True
    properties = parameters.get("properties")
    if isinstance(properties, Mapping) and key in properties:
        return properties[key]
    extra = parameters.get("additionalProperties", True)
    return extra if isinstance(extra, Mapping) else True


def types_of(schema: Any, root: Any, *, depth: int = 0) -> frozenset[str]:
    """The JSON types that a schema allows; all where it does not say."""
    if not isinstance(schema, Mapping) or depth > _MAX_DEPTH:
        return ALL_TYPES
    allowed = ALL_TYPES
    named = schema.get("type")
    if isinstance(named, str):
        allowed = frozenset({named})
    elif isinstance(named, list):
        allowed = frozenset(name for name in named if isinstance(name, str))
    if "number" in allowed:
        allowed |= {"integer"}
    values = schema.get("enum", [schema["const"]] if "const" in schema else None)
    if isinstance(values, list):
        allowed &= frozenset(name for value in values for name in type_names(value))
    for keyword in ("anyOf", "oneOf"):
        if isinstance(schema.get(keyword), list):
            choices = [types_of(each, root, depth=depth + 1) for each in schema[keyword]]
            allowed &= frozenset().union(*choices)
    for each in schema["allOf"] if isinstance(schema.get("allOf"), list) else ():
        allowed &= types_of(each, root, depth=depth + 1)
    if isinstance(schema.get("$ref"), str):
        allowed &= types_of(resolve(schema["$ref"], root), root, depth=depth + 1)
    return allowed


def resolve(reference: str, root: Any) -> Any:
    """What a local reference (``#/$defs/name``) points to; True where that is nothing."""
    if not reference.startswith("#/"):
        return True
    found = root
    for part in reference[2:].split("/"):
        if not isinstance(found, Mapping):
            return True
        found = found.get(part.replace("~1", "/").replace("~0", "~"), True)
    return found


def type_names(value: Any) -> tuple[str, ...]:
    """The JSON types of a value: an integer is a number too."""
    if isinstance(value, bool):
        return ("boolean",)
    if value is None:
        return ("null",)
    if isinstance(value, int):
        return ("integer", "number")
    if isinstance(value, float):
        return ("number", "integer") if value.is_integer() else ("number",)
    if isinstance(value, str):
        return ("string",)
    return ("array",) if isinstance(value, list) else ("object",)


def typed(text: str, schema: Any, root: Any) -> Any:
    """The value that a text is under a schema."""
    allowed = types_of(schema, root)
    if allowed == {"string"} or _is_choice(text, schema):
        return text
    value = parsed(text)
    if isinstance(value, str) or not set(type_names(value)) & allowed:
        return value if isinstance(value, str) and "string" not in allowed else text
    return value


def parsed(text: str) -> Any:
    """The value of a JSON text, or of one as Python prints it; the text itself if it is neither."""
    words = text.strip()
    value = load_json(words)
    if value is None and words != "null":
        value = _python(words)
    return value


def _python(text: str) -> Any:
    if text in _PYTHON:
        return _PYTHON[text]
    if text[:1] not in ("{", "[") or len(text) > _MAX_PYTHON_CHARS:
        return text
    try:
        value = ast.literal_eval(text)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return text
    return value if isinstance(value, dict | list) and dump_json(value) is not None else text


def _is_choice(text: str, schema: Any) -> bool:
    if not isinstance(schema, Mapping):
        return False
    values = schema.get("enum", [schema.get("const")])
    return isinstance(values, list) and text in values

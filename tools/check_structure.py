"""Structured answers of the bundled checkpoint at a high temperature, all judged by jsonschema.

    python -m tools.check_structure [--per-schema 10] [--temperature 1.5]

20 schemas, eight answers at a time. Prints how many answers there were and what is wrong with each
that is no JSON or not valid under its schema; exits with 1 if there is one.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from dataclasses import dataclass
from typing import Any

from mofa_gguf import ChatCompletionRequest, ChatMessage, GGUFConfig, GGUFProvider, ResponseFormat

N_AT_ONCE = 8
_NAME = {"type": "string", "maxLength": 6}
_DIGIT = {"type": "integer", "minimum": 0, "maximum": 9}


def _object(properties: dict[str, Any], *optional: str, **more: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": [name for name in properties if name not in optional],
        "additionalProperties": False,
        **more,
    }


SCHEMAS: dict[str, dict[str, Any]] = {
    "one text": _object({"name": _NAME}),
    "numbers": _object({"n": _DIGIT, "x": {"type": "number", "minimum": -2.5, "maximum": 2.5}}),
    "choices": _object({"unit": {"enum": ["C", "F", "deg C", None, 7]}, "kind": {"const": "é"}}),
    "flags": _object({"a": {"type": "boolean"}, "b": {"type": "null"}}, "b"),
    "list": {"type": "array", "items": _DIGIT, "minItems": 1, "maxItems": 4},
    "tuple": {"type": "array", "prefixItems": [_NAME, _DIGIT], "items": False, "minItems": 2},
    "nested": _object({"place": _object({"city": _NAME, "at": _object({"lat": _DIGIT})})}),
    "optional": _object({"a": _DIGIT, "b": _NAME, "c": {"type": "boolean"}}, "a", "b", "c"),
    "pattern": _object({"code": {"type": "string", "pattern": "^[A-Z]{2}-[0-9]{3}$"}}),
    "date": _object({"on": {"type": "string", "format": "date"}}),
    "address": {"type": "string", "format": "ipv4"},
    "reference": _object(
        {"left": {"$ref": "#/$defs/leaf"}, "right": {"$ref": "#/$defs/leaf"}},
        **{"$defs": {"leaf": _object({"v": _DIGIT})}},
    ),
    "tree": {
        "$ref": "#/$defs/node",
        "$defs": {
            "node": _object(
                {"v": _DIGIT, "next": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/node"}]}}
            )
        },
    },
    "either": {"anyOf": [_object({"ok": {"const": True}}), _object({"error": _NAME})]},
    "several types": _object({"v": {"type": ["integer", "null", "boolean"], "maximum": 99}}),
    "map": {
        "type": "object",
        "patternProperties": {"^[a-c]$": _DIGIT},
        "additionalProperties": False,
        "maxProperties": 3,
    },
    "multiples": _object({"n": {"type": "integer", "multipleOf": 5, "minimum": 0, "maximum": 50}}),
    "all of": {"allOf": [{"type": "integer", "minimum": 3}, {"maximum": 30}]},
    "unicode": _object({"größe": {"enum": ["klein", "groß"]}, "名前": {"type": "boolean"}}),
    "objects": {"type": "array", "items": _object({"id": _DIGIT, "tag": _NAME}), "maxItems": 2},
}


@dataclass(frozen=True)
class Answer:
    """One answer; ``problem`` says what is wrong with it."""

    schema: str
    seed: int
    text: str
    n_tokens: int
    problem: str | None


def problem_of(text: str, schema: dict[str, Any]) -> str | None:
    """What is wrong with a text that should be JSON of a schema."""
    from jsonschema import Draft202012Validator

    try:
        value = json.loads(text)
    except ValueError as error:
        return f"no JSON: {error}"
    errors = list(Draft202012Validator(schema).iter_errors(value))
    return errors[0].message if errors else None


async def answers(provider: GGUFProvider, *, per_schema: int, temperature: float) -> list[Answer]:
    """``per_schema`` answers under each schema, eight at a time."""
    free = asyncio.Semaphore(N_AT_ONCE)

    async def one(name: str, seed: int) -> Answer:
        request = ChatCompletionRequest(
            messages=[ChatMessage.user("What is the weather in Paris?")],
            response_format=ResponseFormat.json_schema(SCHEMAS[name]),
            temperature=temperature,
            seed=seed,
        )
        async with free:
            response = await provider.chat(request)
        text, usage = response.content() or "", response.usage
        n_tokens = usage.completion_tokens if usage is not None else 0
        return Answer(name, seed, text, n_tokens, problem_of(text, SCHEMAS[name]))

    wanted = [one(name, seed) for seed in range(per_schema) for name in SCHEMAS]
    return list(await asyncio.gather(*wanted))


async def check(per_schema: int, temperature: float) -> int:
    """Runs all; 1 if an answer is not valid."""
    async with GGUFProvider(GGUFConfig(model="demo")) as provider:
        await provider.load()
        started = time.monotonic()
        found = await answers(provider, per_schema=per_schema, temperature=temperature)
        seconds = time.monotonic() - started
    wrong = [answer for answer in found if answer.problem is not None]
    for answer in wrong:
        print(answer)
    n_tokens = sum(answer.n_tokens for answer in found)
    print(
        f"{len(found) - len(wrong)} of {len(found)} answers are valid under {len(SCHEMAS)} schemas "
        f"at temperature {temperature}; {n_tokens} tokens in {seconds:.1f} s"
    )
    return 1 if wrong else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--per-schema", type=int, default=10)
    parser.add_argument("--temperature", type=float, default=1.5)
    arguments = parser.parse_args()
    sys.exit(asyncio.run(check(arguments.per_schema, arguments.temperature)))


if __name__ == "__main__":
    main()

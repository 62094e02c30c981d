"""Schemas, grammars and tools beyond all measure: a typed error in time, and the next answer."""

from __future__ import annotations

import gc
import json
import resource
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from mofa_gguf import (
    ChatCompletionRequest,
    ChatMessage,
    GGUFConfig,
    GGUFProvider,
    LLMError,
    ResponseFormat,
    Tool,
    ToolChoice,
)
from tests.provider.test_structure import write_model

N_LARGE = 10_000_000
LIMIT_S = 1.0
LIMIT_MIB = 700


@pytest.fixture(scope="module")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("hostile") / "tiny.gguf", "chatml_with_tools")


@pytest.fixture
async def provider(model_path: Path) -> AsyncIterator[GGUFProvider]:
    async with GGUFProvider(GGUFConfig(model=str(model_path), n_threads=1)) as opened:
        await opened.load()
        yield opened


def nested(depth: int, keyword: str) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "object", keyword: {"a": schema} if keyword == "properties" else schema}
    return schema


def schema(value: dict[str, Any]) -> dict[str, Any]:
    return {"response_format": ResponseFormat.json_schema(value)}


def forced(parameters: dict[str, Any], choice: Any = ToolChoice.REQUIRED) -> dict[str, Any]:
    return {"tools": [Tool.function("f", "", parameters)], "tool_choice": choice}


HOSTILE: dict[str, dict[str, Any]] = {
    "a schema of 10 MB": schema({"enum": ["x" * 1000 + str(n) for n in range(N_LARGE // 1000)]}),
    "an enum of 60,000": schema({"enum": [f"value {n}" for n in range(60_000)]}),
    "properties without end": schema({"properties": {f"p{n}": {} for n in range(40_000)}}),
    "deep properties": schema(nested(200, "properties")),
    "deeper properties": schema(nested(90_000, "properties")),
    "a reference to itself": schema({"$ref": "#"}),
    "references in a ring": schema(
        {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}
    ),
    "exponential references": schema(
        {
            "$ref": "#/$defs/d0",
            "$defs": {
                **{f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(60)},
                "d60": {"type": "string"},
            },
        }
    ),
    "a text of 10^9 letters": schema({"type": "string", "minLength": 10**9}),
    "a list of 10^9": schema({"type": "array", "items": {"type": "null"}, "minItems": 10**9}),
    "a pattern in a pattern": schema({"type": "string", "pattern": "^(((a{1,999}){1,999}){1,9})$"}),
    "a long pattern": {"regex": "a" * N_LARGE},
    "repetition of repetition": {"regex": "((a{1,1000}){1,1000}){1,1000}"},
    "a wide look back": {"regex": "(a|b)*a(a|b){2000}"},
    "GBNF of 10 MB": {"gbnf": 'root ::= "' + "a" * N_LARGE + '"'},
    "GBNF repeated": {"gbnf": 'root ::= ("a"{1000000000}){1000000000}'},
    "GBNF brackets": {"gbnf": "root ::= " + "(" * 100_000},
    "Lark repeated": {"lark": 'start: ("a"{0,100000}){0,100000}'},
    "Lark of many rules": {
        "lark": "start: r0\n" + "\n".join(f'r{n}: r{n + 1} r{n + 1} "x"' for n in range(20_000))
    },
    "a tool of 10 MB": forced({"properties": {"a": {"enum": ["x" * 100] * (N_LARGE // 100)}}}),
    "a deep tool": forced(nested(90_000, "properties")),
    "a tool of 10 MB, if it likes": forced(
        {"properties": {"a": {"enum": ["x" * 100] * (N_LARGE // 100)}}}, ToolChoice.AUTO
    ),
}


def memory_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@pytest.mark.parametrize("title", sorted(HOSTILE))
async def test_an_error_in_time_or_an_answer_and_the_next_request_is_served(
    provider: GGUFProvider, title: str
) -> None:
    message = [ChatMessage.user("?")]
    gc.collect()
    memory = memory_mib()
    request = ChatCompletionRequest(messages=message, max_tokens=8, seed=1, **HOSTILE[title])
    started = time.process_time()
    try:
        await provider.chat(request)
    except LLMError as error:
        assert len(str(error)) < 2000
        assert "\n" not in str(error)
    assert time.process_time() - started < LIMIT_S
    assert memory_mib() - memory < LIMIT_MIB
    small = ResponseFormat.json_schema({"enum": ["yes"]})
    # Random weights may think without end before they answer, where they are let.
    after = ChatCompletionRequest(messages=message, response_format=small, reasoning_budget=0)
    assert json.loads((await provider.chat(after)).content() or "") == "yes"

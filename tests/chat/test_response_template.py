"""Answers of models that come with a response template are read as transformers reads them.

The expectations are transformers' own (``tools/make_response_expectations.py``).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mofa_gguf.chat import ChatTemplate
from mofa_gguf.chat.response_template import NO_HINTS, read_response_template
from mofa_gguf.contract import ChatMessage

DATA = Path(__file__).parent.parent / "data" / "chat" / "responses.json"
CASES: list[dict[str, Any]] = json.loads(DATA.read_text("utf-8"))["cases"]
PAIRS = [(case, answer) for case in CASES for answer in case["answers"]]
WITH_MARKS = [case for case in CASES if "<|muse|>" in json.dumps(case["response_template"])]


def template_of(case: dict[str, Any], *, told: bool = True) -> ChatTemplate:
    response_template = json.dumps(case["response_template"]) if told else None
    return ChatTemplate(case["chat_template"], response_template=response_template)


def as_told(message: ChatMessage) -> dict[str, Any]:
    """A message in the form of transformers: arguments as objects, nothing that is empty."""
    calls = [
        {
            "type": "function",
            "function": {
                "name": call.function.name,
                "arguments": call.function.parse_arguments(),
            },
        }
        for call in message.tool_calls or ()
    ]
    found = {
        "role": "assistant",
        "reasoning_content": message.reasoning_content,
        "content": message.content,
        "tool_calls": calls,
    }
    return {name: value for name, value in found.items() if value}


def expected(answer: dict[str, Any]) -> dict[str, Any]:
    message = dict(answer["message"])
    if "thinking" in message:
        message["reasoning_content"] = message.pop("thinking")
    return message


def pieces(text: str, size: int) -> Iterator[str]:
    return (text[i : i + size] for i in range(0, len(text), size))


@pytest.mark.parametrize("size", [1000, 1], ids=["whole", "letters"])
@pytest.mark.parametrize(
    ("case", "answer"), PAIRS, ids=lambda it: it.get("name") or it["text"][:20]
)
def test_answers_are_read_as_transformers_reads_them(
    case: dict[str, Any], answer: dict[str, Any], size: int
) -> None:
    template = template_of(case)
    prompt = template.render(case["messages"], case.get("tools"))
    assert prompt == case["prompt"]
    parser = template.parser(case.get("tools") or [], prompt)
    for piece in pieces(answer["text"], size):
        parser.feed(piece)
    assert as_told(parser.finish()) == expected(answer)


@pytest.mark.parametrize("case", WITH_MARKS, ids=lambda case: case["name"])
def test_without_it_these_marks_stay_text(case: dict[str, Any]) -> None:
    template = template_of(case, told=False)
    read = template.parse("<|muse|>Hm.<|/muse|>Yes.", prompt=case["prompt"])
    assert "<|muse|>" in str(read.content)
    told = template_of(case)
    assert {"<|muse|>", "<|/muse|>"} <= told.markers
    assert told.capabilities.reasoning


def test_calls_that_only_the_response_template_tells_of_can_be_forced() -> None:
    case = next(case for case in CASES if case["name"] == "calls in JSON")
    assert not template_of(case, told=False).capabilities.tools
    template = template_of(case)
    assert template.capabilities.tool_format == "response_template"
    grammar = template.forms(case["prompt"]).calls(case["tools"])
    assert "get_weather" in grammar
    assert "<|/call|>" in grammar


def test_what_the_chat_template_tells_comes_first() -> None:
    source = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n<think></think>{{ m.content }}"
        "{% for c in m.tool_calls or [] %}<tool_call>\n{{ c.function | tojson }}\n</tool_call>"
        "{% endfor %}<|im_end|>\n{% endfor %}{{ tools | tojson if tools }}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    other = json.dumps(CASES[-1]["response_template"])
    plain, told = ChatTemplate(source), ChatTemplate(source, response_template=other)
    assert told.capabilities == plain.capabilities
    assert plain.capabilities.tools
    text = "<think>Hm.</think>Yes.<|im_end|>"
    assert told.parse(text) == plain.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "no JSON",
        "[]",
        "null",
        '{"fields": 5}',
        '{"version": 2, "fields": {"thinking": {"open": "<a>", "close": "</a>"}}}',
        '{"fields": {"thinking": 7, "content": null, "tool_calls": []}}',
        '{"fields": {"thinking": {"open": "", "close": "</a>"}}}',
        '{"fields": {"thinking": {"open": "<think>"}}}',
        '{"fields": {"thinking": {"open_pattern": "<(a|b)>", "close": "</a>"}}}',
        '{"fields": {"thinking": {"open_pattern": "<[ab]+>", "close": "</a>"}}}',
        '{"fields": {"tool_calls": {"open": "<c>", "close": "</c>", "content": "xml-inline"}}}',
        '{"fields": {"tool_calls": {"open": "<c>", "close": "</c>", "content": "json"}}}',
        '{"fields": {"tool_calls": {"open_pattern": "(?P<name>.*)", "close": "x", "content": '
        '"json", "transform": {"function": {"name": "{name}", "arguments": "{content}"}}}}}',
        "[" * 100_000,
    ],
)
def test_what_is_not_understood_adds_nothing(text: str) -> None:
    assert read_response_template(text) == NO_HINTS


def test_none_is_none() -> None:
    assert read_response_template(None) is NO_HINTS

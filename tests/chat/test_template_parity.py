"""Rendering equals transformers' apply_chat_template, for the templates that models ship.

What transformers gave is recorded by tools/make_template_expectations.py; the templates themselves
are not part of the project.
"""

from __future__ import annotations

import gzip
import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from mofa_gguf.chat import ChatTemplate, RenderLimits, TemplateError
from mofa_gguf.chat.messages import template_messages
from mofa_gguf.chat.program import TemplateProgram
from mofa_gguf.contract import ChatMessage, Tool

DATA = Path(__file__).parent.parent / "data" / "chat"
CONVERSATIONS: dict[str, Any] = json.loads((DATA / "conversations.json").read_text("utf-8"))
EXPECTED: dict[str, dict[str, Any]] = json.loads(
    gzip.decompress((DATA / "expectations.json.gz").read_bytes())
)["templates"]
AS_TEXT = "tool call with arguments as text"


def clock() -> datetime:
    return datetime(2025, 7, 4, 12, 30, 15)


@pytest.fixture(scope="module", params=sorted(EXPECTED))
def case(request: pytest.FixtureRequest, shared_data: Path) -> tuple[str, ChatTemplate]:
    source = (shared_data / "chat_templates" / f"{request.param}.jinja").read_text("utf-8")
    template = ChatTemplate(source, bos_token="<s>", eos_token="</s>", now=clock)
    return request.param, template


def test_every_conversation_renders_exactly_as_transformers_renders_it(
    case: tuple[str, ChatTemplate],
) -> None:
    name, template = case
    program = TemplateProgram(
        template.source,
        constants={"bos_token": "<s>", "eos_token": "</s>"},
        limits=RenderLimits(),
        now=clock,
    )
    for title, conversation in CONVERSATIONS.items():
        expected = EXPECTED[name][title]
        try:
            rendered: Any = program.render(
                template_messages(conversation["messages"]),
                tools=conversation.get("tools"),
                add_generation_prompt=conversation.get("add_generation_prompt", True),
                arguments=conversation.get("arguments"),
            )
        except TemplateError:
            assert isinstance(expected, dict), title
        else:
            assert rendered == expected, title


def test_what_callers_get_differs_only_where_transformers_fails_or_prints_python(
    case: tuple[str, ChatTemplate],
) -> None:
    name, template = case
    for title, conversation in CONVERSATIONS.items():
        expected = EXPECTED[name][title]
        # Arguments as text and text in parts are brought into the form that the template takes.
        if isinstance(expected, dict) or title in (AS_TEXT, "text parts"):
            continue
        assert render(template, conversation) == expected, title


def test_arguments_render_the_same_as_text_and_as_objects(case: tuple[str, ChatTemplate]) -> None:
    _, template = case
    as_objects = CONVERSATIONS["parallel tool calls"]
    as_text = json.loads(json.dumps(as_objects))
    for message in as_text["messages"]:
        for call in message.get("tool_calls", ()):
            function = call["function"]
            function["arguments"] = json.dumps(function["arguments"], ensure_ascii=False)
    assert render_or_error(template, as_text) == render_or_error(template, as_objects)


def test_messages_of_the_contract_render_as_dictionaries_do(
    case: tuple[str, ChatTemplate],
) -> None:
    _, template = case
    for title, conversation in CONVERSATIONS.items():
        typed = dict(conversation)
        typed["messages"] = [ChatMessage.from_dict(m) for m in conversation["messages"]]
        if "tools" in conversation:
            typed["tools"] = [Tool.from_dict(tool) for tool in conversation["tools"]]
        as_dicts = dict(conversation, messages=[m.to_dict() for m in typed["messages"]])
        assert render_or_error(template, typed) == render_or_error(template, as_dicts), title


def render(template: ChatTemplate, conversation: dict[str, Any]) -> str:
    return template.render(
        conversation["messages"],
        conversation.get("tools"),
        conversation.get("add_generation_prompt", True),
        **conversation.get("arguments", {}),
    )


def render_or_error(template: ChatTemplate, conversation: dict[str, Any]) -> str:
    try:
        return render(template, conversation)
    except TemplateError as error:
        return f"{type(error).__name__}: {error}"

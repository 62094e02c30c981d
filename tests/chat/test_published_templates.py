"""Published templates: where their calls begin, and results that come in parts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mofa_gguf.chat import ChatTemplate
from mofa_gguf.chat.probe import answer_start
from mofa_gguf.contract import ChatMessage, TextPart, ToolCall
from tests.chat.test_probe import KNOWN
from tests.support.call_families import TOOLS

CALL = ToolCall.new("abcdefghi", "get_weather", {"city": "Oslo", "days": 3})
ASK = ChatMessage.user("?")


@pytest.fixture(params=sorted(KNOWN))
def template(request: pytest.FixtureRequest, shared_data: Path) -> ChatTemplate:
    source = (shared_data / "chat_templates" / f"{request.param}.jinja").read_text("utf-8")
    return ChatTemplate(source, bos_token="<s>", eos_token="</s>")


def test_the_beginning_of_a_call_is_recognised(template: ChatTemplate) -> None:
    prompt = template.render([ASK], TOOLS)
    answered = [ASK, ChatMessage.assistant_with_tool_calls([CALL])]
    whole = template.render(answered, TOOLS, add_generation_prompt=False)
    answer = whole[answer_start(prompt, whole, sorted(template.markers)) :]
    forms = template.forms(prompt)
    beginnings = [
        found.start()
        for each in forms.triggers(TOOLS)
        if (found := re.search(each.pattern, answer)) is not None
    ]
    assert beginnings
    assert "get_weather" in forms.answer(tools=TOOLS)


def test_a_result_in_parts_is_read_like_one_text(template: ChatTemplate) -> None:
    called = [ASK, ChatMessage.assistant_with_tool_calls([CALL])]
    result = ChatMessage.tool_result(CALL.id, "21 degrees\nand rain")
    parts = [TextPart(text="21 degrees"), TextPart(text="and rain")]
    in_parts = template.render([*called, result.model_copy(update={"content": parts})], TOOLS)
    assert "21 degrees" in in_parts
    assert "and rain" in in_parts
    assert "{'" not in in_parts.split("21 degrees")[1]
    if not template.capabilities.content_parts:
        assert in_parts == template.render([*called, result], TOOLS)

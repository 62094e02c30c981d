"""What a template can do is found out by rendering with it."""

from __future__ import annotations

from collections.abc import Callable
from os.path import commonprefix
from pathlib import Path

import pytest

from mofa_gguf.chat import ChatTemplate
from mofa_gguf.contract import ChatMessage, ToolCall

Make = Callable[[str], ChatTemplate]


def test_chatml_with_tools(hermes: ChatTemplate) -> None:
    found = hermes.capabilities
    assert (found.tools, found.tool_format) == (True, "hermes")
    assert (found.tool_results, found.parallel_tool_calls, found.system_role) == (True, True, True)
    assert (found.reasoning, found.reasoning_always) == (False, False)
    assert (found.content_parts, found.image_parts) == (False, False)


def test_single_json_calls(llama: ChatTemplate) -> None:
    found = llama.capabilities
    assert (found.tools, found.tool_format, found.parallel_tool_calls) == (True, "llama", False)


def test_listed_calls(mistral: ChatTemplate) -> None:
    found = mistral.capabilities
    assert (found.tools, found.tool_format, found.parallel_tool_calls) == (True, "mistral", True)


def test_a_template_without_tools(strict: ChatTemplate) -> None:
    found = strict.capabilities
    assert (found.tools, found.tool_format, found.tool_results) == (False, None, False)
    assert not found.system_role


def test_tools_whose_calls_cannot_be_read_do_not_count(make: Make) -> None:
    template = make(
        "{% for t in tools or [] %}{{ t.function.name }}{% endfor %}{% for m in messages %}"
        "{{ m.role }}{{ m.content }}{% for c in m.tool_calls or [] %}"
        "CALL {{ c.function.name }} WITH {{ c.function.arguments }}{% endfor %}{% endfor %}"
    )
    assert not template.capabilities.tools


def test_a_template_that_only_tells_the_format(make: Make) -> None:
    template = make(
        "{% if tools %}Use <tool_call> for {{ tools | tojson }}{% endif %}"
        "{% for m in messages %}{{ m.role }}{{ m.content }}{% endfor %}"
    )
    assert template.capabilities.tool_format == "hermes"


def test_reasoning_that_the_prompt_always_opens(make: Make) -> None:
    template = make(
        "{% for m in messages %}{{ m.content.split('</think>')[-1] }}{% endfor %}"
        "{% if add_generation_prompt %}<think>\n{% endif %}"
    )
    assert (template.capabilities.reasoning, template.capabilities.reasoning_always) == (True, True)


def test_markers_are_what_a_parser_must_see(mistral: ChatTemplate) -> None:
    assert {"[TOOL_CALLS]", "<think>", "</think>"} <= mistral.markers


KNOWN = {
    "Bielik-11B-v3.0-Instruct": "hermes",
    "MiMo-VL": "hermes",
    "NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use": "hermes",
    "NousResearch-Hermes-3-Llama-3.1-8B-tool_use": "hermes",
    "Qwen-Qwen2.5-7B-Instruct": "hermes",
    "Qwen-Qwen3-0.6B": "hermes",
    "Reka-Edge": "hermes",
    "ibm-granite-granite-4.0": "hermes",
    "meta-llama-Llama-3.1-8B-Instruct": "llama",
    "meta-llama-Llama-3.2-3B-Instruct": "llama",
    "mistralai-Mistral-Nemo-Instruct-2407": "mistral",
    "Mistral-Small-3.2-24B-Instruct-2506": "mistral",
}


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_calls_of_published_templates_come_back_as_they_were(shared_data: Path, name: str) -> None:
    source = (shared_data / "chat_templates" / f"{name}.jinja").read_text("utf-8")
    template = ChatTemplate(source, bos_token="<s>", eos_token="</s>")
    found = template.capabilities
    assert (found.tools, found.tool_format) == (True, KNOWN[name])

    tools = [
        {
            "type": "function",
            "function": {
                "name": n,
                "description": "d",
                "parameters": {
                    "type": "object",
                    "properties": {"a": {"type": "string", "description": "d"}},
                },
            },
        }
        for n in ("first_tool", "second_tool")
    ]
    calls = [
        ToolCall.new("aaaaaaaa1", "first_tool", {"a": 'é "quoted" \\ <tool_call> {', "b": [1, {}]}),
        ToolCall.new("aaaaaaaa2", "second_tool", {}),
    ]
    ask = ChatMessage.user("Do it.")
    for n_calls in (1, 2) if found.parallel_tool_calls else (1,):
        prompt = template.render([ask], tools)
        whole = template.render(
            [ask, ChatMessage.assistant_with_tool_calls(calls[:n_calls])],
            tools,
            add_generation_prompt=False,
        )
        start = len(commonprefix([prompt, whole]))  # noqa: RUF071
        message = template.parse(whole[start:], tools, prompt=prompt[:start])
        assert message.content is None
        read = [(c.function.name, c.function.parse_arguments()) for c in message.tool_calls or []]
        assert read == [(c.function.name, c.function.parse_arguments()) for c in calls[:n_calls]]

"""What a template can do is found out by rendering with it."""

from __future__ import annotations

from collections.abc import Callable
from os.path import commonprefix
from pathlib import Path

import pytest

from mofa_gguf.chat import ChatTemplate
from mofa_gguf.chat.probe import answer_start
from mofa_gguf.contract import ChatMessage, ToolCall
from tests.support.call_families import TOOLS

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
    "Apertus-8B-Instruct": "apertus",
    "Bielik-11B-v3.0-Instruct": "hermes",
    "Cohere2MoE": "command-r",
    "CohereForAI-c4ai-command-r7b-12-2024-tool_use": "command-r",
    "GLM-4.7-Flash": "glm",
    "GigaChat3.1-10B-A1.8B": "gigachat",
    "Kimi-K2-Instruct": "kimi-k2",
    "Kimi-K3": "kimi-k3",
    "LFM2.5-8B-A1B": "lfm2",
    "MiMo-VL": "hermes",
    "MiniMax-M2": "minimax",
    "Mistral-Small-3.2-24B-Instruct-2506": "mistral",
    "NVIDIA-Nemotron-Nano-v2": "nemotron",
    "NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use": "hermes",
    "NousResearch-Hermes-3-Llama-3.1-8B-tool_use": "hermes",
    "Qwen-Qwen2.5-7B-Instruct": "hermes",
    "Qwen-Qwen3-0.6B": "hermes",
    "Qwen3-Coder": "qwen-coder",
    "Reka-Edge": "hermes",
    "StepFun3.5-Flash": "qwen-coder",
    "deepseek-ai-DeepSeek-V3.2": "deepseek-v3.2",
    "deepseek-ai-DeepSeek-V4": "deepseek-v4",
    "google-gemma-4-31B-it": "gemma",
    "ibm-granite-granite-4.0": "hermes",
    "inclusionai-ling-3.0-flash": "glm-lines",
    "meetkai-functionary-medium-v3.2": "functionary",
    "meta-llama-Llama-3.1-8B-Instruct": "llama",
    "meta-llama-Llama-3.2-3B-Instruct": "llama",
    "mistralai-Mistral-Nemo-Instruct-2407": "mistral",
    "muse-glimmer": "muse",
    "openbmb-MiniCPM5-1B": "function-tags",
}
# R1's distillations render calls and results, and never tell the model of its tools.
WITHOUT_TOOLS = {
    "deepseek-ai-DeepSeek-R1-Distill-Qwen-32B",
    "google-gemma-2-2b-it",
    "llama-cpp-rwkv-world",
    "microsoft-Phi-3.5-mini-instruct",
}


def test_every_published_template_is_known(shared_data: Path) -> None:
    names = {path.stem for path in (shared_data / "chat_templates").glob("*.jinja")}
    assert names == KNOWN.keys() | WITHOUT_TOOLS


@pytest.mark.parametrize("name", sorted(WITHOUT_TOOLS))
def test_published_templates_that_tell_of_no_tools(shared_data: Path, name: str) -> None:
    source = (shared_data / "chat_templates" / f"{name}.jinja").read_text("utf-8")
    assert not ChatTemplate(source, bos_token="<s>", eos_token="</s>").capabilities.tools


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
                    "properties": {
                        "a": {"type": "string", "description": "d"},
                        "b": {"type": "array", "description": "d"},
                        "c": {"type": "number", "description": "d"},
                        "d": {"type": "boolean", "description": "d"},
                    },
                },
            },
        }
        for n in ("first_tool", "second_tool")
    ]
    calls = [
        ToolCall.new(
            "aaaaaaaa1",
            "first_tool",
            {"a": 'é "quoted" \\ <tool_call> {', "b": [1, {}], "c": 0.5, "d": True},
        ),
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
        if prompt.endswith("<|END_THINKING|>") and whole.endswith("<|END_THINKING|>"):
            # Command R's template writes the next prompt whether it is asked to or not.
            whole = whole[: -len(commonprefix([prompt[::-1], whole[::-1]]))]  # noqa: RUF071
        start = answer_start(prompt, whole, sorted(template.markers))
        message = template.parse(whole[start:], tools, prompt=prompt[:start])
        assert message.content is None
        read = [(c.function.name, c.function.parse_arguments()) for c in message.tool_calls or []]
        assert read == [(c.function.name, c.function.parse_arguments()) for c in calls[:n_calls]]


# Their templates leave out the text of a message with calls, or (Nemotron) put it into another
# turn; Reka's puts a blank in front of all text.
LOSES_TEXT = {
    "Cohere2MoE",
    "CohereForAI-c4ai-command-r7b-12-2024-tool_use",
    "Mistral-Small-3.2-24B-Instruct-2506",
    "NVIDIA-Nemotron-Nano-v2",
    "NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use",
    "NousResearch-Hermes-3-Llama-3.1-8B-tool_use",
    "Reka-Edge",
    "meta-llama-Llama-3.1-8B-Instruct",
    "meta-llama-Llama-3.2-3B-Instruct",
    "mistralai-Mistral-Nemo-Instruct-2407",
    "muse-glimmer",
}


@pytest.mark.parametrize("name", sorted(KNOWN.keys() - LOSES_TEXT))
def test_text_and_a_call_come_back_as_they_were(shared_data: Path, name: str) -> None:
    source = (shared_data / "chat_templates" / f"{name}.jinja").read_text("utf-8")
    template = ChatTemplate(source, bos_token="<s>", eos_token="</s>")
    arguments = {"city": "12", "days": 3, "exact": False, "hours": [], "place": {"code": "ü"}}
    call = ToolCall.new("abcdefghi", "get_weather", arguments)
    answer = ChatMessage.assistant_with_tool_calls([call])
    answer = answer.model_copy(update={"content": "Let me see."})
    ask = ChatMessage.user("?")
    prompt = template.render([ask], TOOLS)
    whole = template.render([ask, answer], TOOLS, add_generation_prompt=False)
    start = answer_start(prompt, whole, sorted(template.markers))
    message = template.parse(whole[start:], TOOLS, prompt=prompt[:start])
    assert message.content == "Let me see."
    (read,) = message.tool_calls or []
    assert (read.function.name, read.function.parse_arguments()) == ("get_weather", arguments)

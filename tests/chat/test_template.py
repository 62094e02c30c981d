"""Rendering: the contract's messages in, the model's text out, refusals adapted or passed on."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from mofa_gguf.chat import (
    ChatTemplate,
    TemplateFailed,
    TemplateRefused,
    TemplateSyntax,
    UnsupportedContent,
    default_template,
)
from mofa_gguf.contract import ChatMessage, Tool, ToolCall

Make = Callable[[str], ChatTemplate]

WEATHER = Tool.function(
    "get_weather", "Weather of a city.", {"properties": {"city": {"type": "string"}}}
)
ASK = ChatMessage.user("Weather in Zürich?")


def call(id: str = "abc123def", city: str = "Zürich") -> ChatMessage:
    return ChatMessage.assistant_with_tool_calls([ToolCall.new(id, "get_weather", {"city": city})])


def test_a_conversation_with_tools_calls_and_results(hermes: ChatTemplate) -> None:
    rendered = hermes.render(
        [
            ChatMessage.system("Be brief."),
            ASK,
            call(),
            ChatMessage.tool_result("abc123def", "21 °C"),
        ],
        tools=[WEATHER],
    )
    assert rendered == (
        "<|im_start|>system\nBe brief.\n\nFunctions:\n"
        '{"type": "function", "function": {"name": "get_weather", "description": '
        '"Weather of a city.", "parameters": {"properties": {"city": {"type": "string"}}, '
        '"type": "object"}}}\n'
        "Call them between <tool_call> and </tool_call>.<|im_end|>\n"
        "<|im_start|>user\nWeather in Zürich?<|im_end|>\n"
        '<|im_start|>assistant\n<tool_call>\n{"name": "get_weather", "arguments": '
        '{"city": "Zürich"}}\n</tool_call><|im_end|>\n'
        "<|im_start|>user\n<tool_response>21 °C</tool_response><|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_the_generation_prompt_can_be_left_out(hermes: ChatTemplate) -> None:
    rendered = hermes.render([ChatMessage.user("hi")], add_generation_prompt=False)
    assert rendered == "<|im_start|>user\nhi<|im_end|>\n"


def test_template_arguments_reach_the_template(hermes: ChatTemplate) -> None:
    assert hermes.render([ASK], thinking=True).endswith("<|im_start|>assistant\n<think>\n")
    assert hermes.render([ASK], thinking=False).endswith("<|im_start|>assistant\n")


def test_template_arguments_may_replace_the_tokens(make: Make) -> None:
    template = make("{{ bos_token }}{{ documents[0].text }}")
    assert template.render([ASK], bos_token="<b>", documents=[{"text": "d"}]) == "<b>d"


def test_no_tools_and_an_empty_list_of_tools_are_the_same(hermes: ChatTemplate) -> None:
    assert hermes.render([ASK], tools=[]) == hermes.render([ASK])


def test_strict_is_not_shown_to_the_model(hermes: ChatTemplate) -> None:
    tool = Tool.function("f", "d")
    tool.function.strict = True
    assert "strict" not in hermes.render([ASK], tools=[tool])


def test_callers_messages_are_not_touched(strict: ChatTemplate) -> None:
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "u", "name": None},
    ]
    before = [dict(message) for message in messages]
    strict.render(messages)
    assert messages == before


def test_arguments_reach_a_template_that_wants_text_as_text(make: Make) -> None:
    template = make(
        "{% for m in messages %}{{ m.role }}:{{ m.content }}{% for c in m.tool_calls or [] %}"
        "<{{ c.function.name + c.function.arguments }}>{% endfor %}{% endfor %}"
    )
    as_object: dict[str, Any] = {
        "role": "assistant",
        "tool_calls": [{"function": {"name": "f", "arguments": {"a": "é"}}}],
    }
    assert template.render([ASK, as_object]).endswith('assistant:<f{"a": "é"}>')
    assert template.render([ASK, call()]).endswith('<get_weather{"city": "Zürich"}>')


def test_arguments_that_are_no_json_stay_text(llama: ChatTemplate) -> None:
    broken = ToolCall.new("1", "f", "{not json")
    rendered = llama.render([ASK, ChatMessage.assistant_with_tool_calls([broken])])
    assert '"parameters": "{not json"}' in rendered


def test_text_parts_are_joined_for_a_template_that_takes_text_only(hermes: ChatTemplate) -> None:
    parts = ChatMessage.from_dict(
        {"role": "user", "content": [{"text": "one"}, {"type": "text", "text": "two"}]}
    )
    assert "user\none\ntwo<|im_end|>" in hermes.render([parts])


def test_parts_reach_a_template_that_takes_parts(make: Make) -> None:
    template = make(
        "{% for m in messages %}{% if m.content is string %}{{ m.content }}{% else %}"
        "{% for p in m.content %}{{ p.text if p.type == 'text' else '<image>' }}{% endfor %}"
        "{% endif %}{% endfor %}"
    )
    assert template.capabilities.content_parts
    assert template.capabilities.image_parts
    message = ChatMessage.user_with_image("look: ", "file.png")
    assert template.render([message]) == "look: <image>"


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        (ChatMessage.user_with_image("look", "file.png"), "image"),
        (ChatMessage.user_with_audio("hear", "AAAA", "wav"), "audio"),
        (ChatMessage.user_with_video("see", "AAAA", "mp4"), "video"),
    ],
)
def test_images_and_sounds_need_a_template_with_a_place_for_them(
    hermes: ChatTemplate, message: ChatMessage, kind: str
) -> None:
    with pytest.raises(UnsupportedContent, match=kind) as caught:
        hermes.render([message])
    assert caught.value.kind == kind


def test_reasoning_is_found_under_each_of_its_names(make: Make) -> None:
    template = make("{{ messages[0].reasoning_content }}|{{ messages[0].thinking }}")
    for name in ("reasoning_content", "thinking", "reasoning"):
        assert template.render([{"role": "assistant", "content": "", name: "why"}]) == "why|why"


def test_an_empty_conversation_is_an_error(hermes: ChatTemplate) -> None:
    with pytest.raises(TemplateFailed, match="no messages"):
        hermes.render([])


def test_the_system_message_goes_to_the_user_where_there_is_no_system_role(
    strict: ChatTemplate,
) -> None:
    rendered = strict.render([ChatMessage.system("Be kind."), ChatMessage.user("Hi")])
    assert rendered == "<s><turn>user\nBe kind.\n\nHi</turn>\n<turn>assistant\n"


def test_neighbours_are_merged_where_roles_must_alternate(strict: ChatTemplate) -> None:
    rendered = strict.render(
        [
            ChatMessage.system("Be kind."),
            ChatMessage.user("One."),
            ChatMessage.user("Two."),
            ChatMessage.assistant("Three."),
            ChatMessage.system("Be brief."),
            ChatMessage.user("Four."),
        ]
    )
    assert rendered == (
        "<s><turn>user\nBe kind.\n\nOne.\n\nTwo.</turn>\n<turn>assistant\nThree.</turn>\n"
        "<turn>user\nBe brief.\n\nFour.</turn>\n<turn>assistant\n"
    )


def test_a_conversation_that_is_accepted_is_not_adapted(hermes: ChatTemplate) -> None:
    rendered = hermes.render([ChatMessage.user("One."), ChatMessage.user("Two.")])
    assert rendered.count("<|im_start|>user") == 2


def test_what_cannot_be_adapted_is_refused_with_the_templates_words(strict: ChatTemplate) -> None:
    with pytest.raises(TemplateRefused, match="Roles must alternate") as caught:
        strict.render([ChatMessage.assistant("I begin.")])
    assert caught.value.reason == "Roles must alternate"


def test_long_ids_are_shortened_for_templates_that_insist(mistral: ChatTemplate) -> None:
    rendered = mistral.render(
        [ASK, call("call_0123456789"), ChatMessage.tool_result("call_0123456789", "21")]
    )
    listed = rendered.split('"id": "')[1].split('"')[0]
    assert len(listed) == 9
    assert f"[RESULT]{listed} 21[/RESULT]" in rendered


def test_parallel_calls_become_single_calls_where_only_those_are_known(
    llama: ChatTemplate,
) -> None:
    both = ChatMessage.assistant_with_tool_calls(
        [
            ToolCall.new("a", "get_weather", {"city": "Rom"}),
            ToolCall.new("b", "get_weather", {"city": "Bern"}),
        ]
    )
    rendered = llama.render(
        [ASK, both, ChatMessage.tool_result("b", "cold"), ChatMessage.tool_result("a", "warm")]
    )
    assert rendered.index('"Rom"') < rendered.index("warm") < rendered.index('"Bern"')
    assert rendered.index('"Bern"') < rendered.index("cold")


def test_of_several_templates_tool_use_is_taken_with_tools() -> None:
    template = ChatTemplate({"default": "plain", "tool_use": "tools: {{ tools | length }}"})
    assert template.render([ASK]) == "plain"
    assert template.render([ASK], tools=[WEATHER]) == "tools: 1"


def test_no_template_at_all_is_an_error() -> None:
    with pytest.raises(TemplateSyntax):
        ChatTemplate({})


def test_the_default_template_is_chatml() -> None:
    template = ChatTemplate(default_template())
    rendered = template.render(
        [
            ChatMessage.system("s"),
            ChatMessage.user(" u\n"),
            {"role": "user", "content": [{"text": "p"}, {"text": "q"}]},
        ]
    )
    assert rendered == (
        "<|im_start|>system\ns<|im_end|>\n<|im_start|>user\n u\n<|im_end|>\n"
        "<|im_start|>user\npq<|im_end|>\n<|im_start|>assistant\n"
    )
    assert not template.capabilities.tools
    assert template.capabilities.system_role


def test_fifty_messages_and_twenty_tools_render_in_a_few_milliseconds(
    hermes: ChatTemplate,
) -> None:
    tools = [Tool.function(f"tool_{n}", "Does things. " * 5) for n in range(20)]
    messages = [ChatMessage.user("text " * 40), ChatMessage.assistant("text " * 40)] * 25
    hermes.render(messages, tools)
    times = []
    for _ in range(5):
        begin = time.thread_time()
        hermes.render(messages, tools)
        times.append(time.thread_time() - begin)
    assert min(times) < 0.010

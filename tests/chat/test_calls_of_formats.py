"""Every family's calls: as its templates write them, as models write them, and malformed."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mofa_gguf.chat.probe import answer_start
from mofa_gguf.contract import ChatMessage, ToolCall
from tests.support.call_families import FORMAT_OF, TOOLS, template

ARGUMENTS: list[dict[str, Any]] = [
    {"city": "Zürich", "days": 3},
    {"city": "12", "days": 0, "exact": True, "hours": [1, 2], "place": {"code": "x", "lat": 0.5}},
    {"city": 'a "b" {c} <d> & e', "days": 1, "unit": "deg C", "exact": False},
    {"city": "two\nlines", "days": 2, "hours": []},
    {"city": "", "days": 5},
    {"city": "true", "days": 7},
]
ASK = {"role": "user", "content": "?"}


def rendered(name: str, calls: list[tuple[str, dict[str, Any]]]) -> tuple[str, str]:
    """The prompt, and the answer that the template writes for these calls."""
    tool_calls = [
        ToolCall.new(f"abcdefgh{n}", tool, arguments) for n, (tool, arguments) in enumerate(calls)
    ]
    chat = template(name)
    # As Mistral's, one template shows its tools with the last message only.
    prompt = chat.render([ASK], None if name == "listed_calls" else TOOLS)
    answered = [ChatMessage.user("?"), ChatMessage.assistant_with_tool_calls(tool_calls)]
    whole = chat.render(answered, TOOLS, add_generation_prompt=False)
    start = answer_start(prompt, whole, sorted(chat.markers))
    return whole[:start], whole[start:]


def calls_in(message: ChatMessage) -> list[tuple[str, Any]]:
    return [(c.function.name, c.function.parse_arguments()) for c in message.tool_calls or []]


@pytest.mark.parametrize("name", sorted(FORMAT_OF))
def test_the_format_is_found_by_reading_the_template(name: str) -> None:
    found = template(name).capabilities
    assert (found.tools, found.tool_format) == (True, FORMAT_OF[name])


@pytest.mark.parametrize("name", sorted(FORMAT_OF))
@pytest.mark.parametrize("arguments", ARGUMENTS, ids=lambda each: each["city"] or "empty")
def test_a_call_comes_back_as_it_was(name: str, arguments: dict[str, Any]) -> None:
    if name == "lfm2_calls" and "\n" in arguments["city"]:
        arguments = {**arguments, "city": "it's unescaped"}
    prompt, answer = rendered(name, [("get_weather", arguments)])
    message = template(name).parse(answer, TOOLS, prompt)
    assert calls_in(message) == [("get_weather", arguments)]
    assert message.content is None


@pytest.mark.parametrize("name", sorted(FORMAT_OF))
def test_two_calls_cut_anywhere_come_back_as_they_were(name: str) -> None:
    chat = template(name)
    if not chat.capabilities.parallel_tool_calls:
        pytest.skip("the template takes one call at a time")
    calls = [("get_weather", ARGUMENTS[2]), ("clock", {})]
    prompt, answer = rendered(name, calls)
    whole = chat.parse(answer, TOOLS, prompt)
    assert calls_in(whole) == calls
    assert whole.content is None
    for n in range(len(answer) + 1):
        parser = chat.parser(TOOLS, prompt)
        parser.feed(answer[:n])
        parser.feed(answer[n:])
        assert parser.finish() == whole


@dataclass(frozen=True)
class Case:
    """An answer and what it means; ``calls`` as (name, arguments)."""

    template: str
    text: str
    calls: list[tuple[str, Any]] = field(default_factory=list)
    content: str | None = None
    reasoning: str | None = None
    prompt: str = ""


OSLO = [("get_weather", {"city": "Oslo", "days": 1})]
_QWEN = (
    "<tool_call>\n<function=get_weather>\n<parameter=city>\n{}\n</parameter>\n"
    "<parameter=days>\n{}\n</parameter>\n</function>\n</tool_call>"
)
_DSML_CALL = (
    '<｜DSML｜function_calls>\n<｜DSML｜invoke name="get_weather">\n'
    '<｜DSML｜parameter name="city" string="true">{}</｜DSML｜parameter>\n'
    '<｜DSML｜parameter name="days" string="false">{}</｜DSML｜parameter>\n'
    "</｜DSML｜invoke>\n</｜DSML｜function_calls>"
)
JSON_OSLO = '{"city": "Oslo", "days": 1}'
CASES = {
    # Tags around each argument
    "qwen: text before": Case(
        "qwen_coder_calls", "Yes.\n\n" + _QWEN.format("Oslo", 1), OSLO, "Yes."
    ),
    "qwen: no line breaks": Case(
        "qwen_coder_calls", _QWEN.replace("\n", "").format("Oslo", 1), OSLO
    ),
    "qwen: no opening tag": Case(
        "qwen_coder_calls", _QWEN.format("Oslo", 1).removeprefix("<tool_call>\n"), OSLO
    ),
    "qwen: no closing tag": Case(
        "qwen_coder_calls", _QWEN.format("Oslo", 1).removesuffix("\n</tool_call>"), OSLO
    ),
    "qwen: a number as text": Case(
        "qwen_coder_calls", _QWEN.format("7", "x"), [("get_weather", {"city": "7", "days": "x"})]
    ),
    "qwen: tags inside text": Case(
        "qwen_coder_calls",
        _QWEN.format("a</parameter>b<parameter=c>", 1),
        [("get_weather", {"city": "a</parameter>b<parameter=c>", "days": 1})],
    ),
    "qwen: unknown argument": Case(
        "qwen_coder_calls",
        "<tool_call><function=f><parameter=a>[1]</parameter><parameter=b>x</parameter></function>",
        [("f", {"a": [1], "b": "x"})],
    ),
    "qwen: no arguments": Case(
        "qwen_coder_calls",
        "<tool_call>\n<function=clock>\n</function>\n</tool_call>",
        [("clock", {})],
    ),
    "qwen: cut off": Case(
        "qwen_coder_calls",
        "<tool_call>\n<function=clock>\n<parameter=city>\nOs",
        content="<tool_call>\n<function=clock>\n<parameter=city>\nOs",
    ),
    "qwen: JSON in the tag": Case(
        "qwen_coder_calls", "<tool_call>{}</tool_call>", content="<tool_call>{}</tool_call>"
    ),
    "glm: line breaks": Case(
        "glm_calls",
        "<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Oslo</arg_value>\n"
        "<arg_key>days</arg_key>\n<arg_value>1</arg_value>\n</tool_call>",
        OSLO,
    ),
    "glm: no name": Case("glm_calls", "<tool_call></tool_call>", content="<tool_call></tool_call>"),
    "glm: nothing to close": Case("glm_calls", "</think>\nHi", content="Hi"),
    "minimax: no section": Case(
        "minimax_calls",
        '<invoke name="get_weather"><parameter name="city">Oslo</parameter>'
        '<parameter name="days">1</parameter></invoke>',
        OSLO,
    ),
    "tags: CDATA": Case(
        "function_tags_calls",
        '<function name="get_weather"><param name="city"><![CDATA[a < b\n]]></param>'
        '<param name="days">1</param></function>',
        [("get_weather", {"city": "a < b\n", "days": 1})],
    ),
    "tags: values as Python prints them": Case(
        "function_tags_calls",
        '<function name="get_weather"><param name="exact">True</param>'
        "<param name=\"place\">{'code': None}</param></function>",
        [("get_weather", {"exact": True, "place": {"code": None}})],
    ),
    "deepseek: the tag tells the type": Case(
        "deepseek_v32_calls",
        _DSML_CALL.format("12", "[1]"),
        [("get_weather", {"city": "12", "days": [1]})],
    ),
    "kimi k3: text around": Case(
        "kimi_k3_calls",
        "<|open|>response<|sep|>Yes.<|close|>response<|sep|><|open|>tools<|sep|>"
        '<|open|>call tool="clock" index="1"<|sep|><|close|>call<|sep|><|close|>tools<|sep|>'
        "<|close|>message<|sep|><|end_of_msg|>",
        [("clock", {})],
        "Yes.",
    ),
    # A name and JSON
    "deepseek: no section": Case(
        "deepseek_r1_calls",
        "<｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n```json\n"
        f"{JSON_OSLO}\n```<｜tool▁call▁end｜>",
        OSLO,
    ),
    "kimi k2: a bracket too few": Case(
        "kimi_k2_calls",
        "<|tool_calls_section_begin|><|tool_call_begin|>functions.get_weather:12"
        f"<|tool_call_argument_begin|>{JSON_OSLO[:-1]}<|tool_call_end|><|tool_calls_section_end|>",
        OSLO,
    ),
    "kimi k2: arguments that are no object": Case(
        "kimi_k2_calls",
        "<|tool_call_begin|>functions.clock:0<|tool_call_argument_begin|>[1]<|tool_call_end|>",
        content="<|tool_call_begin|>functions.clock:0<|tool_call_argument_begin|>[1]<|tool_call_end|>",
    ),
    "function tag: text after": Case(
        "function_tag_calls", "<function=clock>{}</function>So.", [("clock", {})], "So."
    ),
    "functionary: text": Case("functionary_calls", "all\nHi", content="Hi", prompt=">>>"),
    "functionary: text and a call": Case(
        "functionary_calls",
        f"all\nHi>>>get_weather\n{JSON_OSLO}",
        OSLO,
        "Hi",
        prompt=">>>",
    ),
    "functionary: a call": Case(
        "functionary_calls", f"get_weather\n{JSON_OSLO}<|eot_id|>", OSLO, prompt=">>>"
    ),
    "mistral: a name and JSON": Case(
        "mistral_named_calls", f"[TOOL_CALLS]get_weather{JSON_OSLO}", OSLO
    ),
    # JSON
    "apertus: several keys are no call": Case(
        "apertus_calls",
        '<|tools_prefix|>[{"a": {}, "b": {}}]<|tools_suffix|>',
        content='<|tools_prefix|>[{"a": {}, "b": {}}]<|tools_suffix|>',
    ),
    "nemotron: one object": Case(
        "nemotron_calls",
        f'<TOOLCALL>{{"name": "get_weather", "arguments": {JSON_OSLO}}}</TOOLCALL>',
        OSLO,
    ),
    "command r: text": Case(
        "command_r_calls", "<|START_RESPONSE|>Hi<|END_RESPONSE|>", content="Hi"
    ),
    "gigachat: text before": Case(
        "gigachat_calls",
        'Hm.<|function_call|>{"name": "clock", "arguments": {}}',
        [("clock", {})],
        "Hm.",
    ),
    # Python, and others
    "lfm2: JSON": Case(
        "lfm2_calls",
        f'<|tool_call_start|>[{{"name": "get_weather", "arguments": {JSON_OSLO}}}]'
        "<|tool_call_end|>",
        OSLO,
    ),
    "lfm2: escapes": Case(
        "lfm2_calls",
        "<|tool_call_start|>[get_weather(city='it\\'s\\n\\d', days=-1)]<|tool_call_end|>",
        [("get_weather", {"city": "it's\n\\d", "days": -1})],
    ),
    "lfm2: the closing mark inside text": Case(
        "lfm2_calls",
        "<|tool_call_start|>[f(a='<|tool_call_end|>', b=true)]<|tool_call_end|>!",
        [("f", {"a": "<|tool_call_end|>", "b": True})],
        "!",
    ),
    "lfm2: a program is no call": Case(
        "lfm2_calls",
        "<|tool_call_start|>[f(a=open('x'))]<|tool_call_end|>",
        content="<|tool_call_start|>[f(a=open('x'))]<|tool_call_end|>",
    ),
    "gemma: all kinds of values": Case(
        "gemma_calls",
        '<|tool_call>call:f{a:<|"|>x,}<|"|>,b:[1, null,{c:true}],d:{},e:-0.5e1}<tool_call|>',
        [("f", {"a": "x,}", "b": [1, None, {"c": True}], "d": {}, "e": -5.0})],
    ),
    "gemma: cut off": Case(
        "gemma_calls", '<|tool_call>call:f{a:<|"|>x', content='<|tool_call>call:f{a:<|"|>x'
    ),
    "harmony: the words of the model": Case(
        "harmony_calls",
        "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>commentary "
        f"to=functions.get_weather <|constrain|>json<|message|>{JSON_OSLO}<|call|>",
        OSLO,
        reasoning="Hm.",
    ),
    "harmony: a preamble": Case(
        "harmony_calls",
        "<|channel|>commentary<|message|>Wait.<|end|><|start|>assistant to=functions.clock"
        "<|channel|>commentary json<|message|>{}<|call|>",
        [("clock", {})],
        "Wait.",
    ),
    "harmony: an answer": Case(
        "harmony_calls",
        "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant"
        "<|channel|>final<|message|>Hi.<|return|>",
        content="Hi.",
        reasoning="Hm.",
    ),
    "muse: an answer": Case(
        "muse_calls",
        " to=self<|message|>Hm.<|eom|><|start|>assistant to=user<|message|>Hi.<|eot|>",
        content="Hi.",
        reasoning="Hm.",
    ),
    "muse: only text": Case("muse_calls", " to=user<|message|>Hi.<|eot|>", content="Hi."),
    # Derived
    "derived: cut off": Case(
        "unknown_named_calls", "<<calls>><<call f|{", content="<<calls>><<call f|{"
    ),
    "derived: text around": Case(
        "unknown_json_calls", 'Hm. @tool {"fn": "clock", "input": {}}@', [("clock", {})], "Hm."
    ),
    # Numbers
    "a number beyond all floats": Case(
        "kimi_k2_calls",
        '<|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>{"a": -1e999}',
        [("f", {"a": -1.7976931348623157e308})],
    ),
    "a number that JSON does not have": Case(
        "kimi_k2_calls",
        '<|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>{"a": Infinity}',
        content='<|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>{"a": Infinity}',
    ),
}


@pytest.mark.parametrize("title", sorted(CASES))
def test_an_answer_is_understood_however_it_is_cut(title: str) -> None:
    case = CASES[title]
    chat = template(case.template)
    whole = chat.parse(case.text, TOOLS, case.prompt)
    assert calls_in(whole) == case.calls
    assert whole.content == case.content
    assert whole.reasoning_content == case.reasoning
    for n in range(len(case.text) + 1):
        parser = chat.parser(TOOLS, case.prompt)
        parser.feed(case.text[:n])
        parser.feed(case.text[n:])
        assert parser.finish() == whole
    letters = chat.parser(TOOLS, case.prompt)
    for letter in case.text:
        letters.feed(letter)
    assert letters.finish() == whole


@pytest.mark.parametrize("name", sorted(FORMAT_OF))
def test_every_beginning_of_a_call_is_text_or_calls_with_valid_arguments(name: str) -> None:
    prompt, answer = rendered(name, [("get_weather", ARGUMENTS[1])])
    for n in range(len(answer)):
        message = template(name).parse(answer[:n], TOOLS, prompt)
        for call in message.tool_calls or []:
            assert isinstance(json.loads(call.function.arguments), dict)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("harmony_calls", "<|channel|>final<|message|>Hi.<|return|>"),
        ("muse_calls", " to=user<|message|>Hi.<|eot|>"),
        ("functionary_calls", "all\nHi."),
        ("command_r_calls", "<|START_RESPONSE|>Hi.<|END_RESPONSE|>"),
        ("kimi_k3_calls", "<|open|>response<|sep|>Hi.<|close|>response<|sep|>"),
    ],
)
def test_texts_around_an_answer_are_dropped_without_tools_too(name: str, text: str) -> None:
    message = template(name).parse(text, tools=[])
    assert (message.content, message.tool_calls) == ("Hi.", None)


def test_without_tools_nothing_is_a_call() -> None:
    for name in sorted(FORMAT_OF):
        _, answer = rendered(name, [("clock", {})])
        assert template(name).parse(answer, tools=[]).tool_calls is None


def test_deep_nesting_is_text_and_no_crash() -> None:
    text = "<|tool_call>call:f{a:" + "[" * 100_000
    assert template("gemma_calls").parse(text, TOOLS).content == text
    text = "<|tool_call_start|>[f(a=" + "(" * 100_000 + "<|tool_call_end|>"
    assert template("lfm2_calls").parse(text, TOOLS).content == text


PIECES = st.lists(
    st.sampled_from(
        [
            *('{"name": "f", "arguments": {}}', '{"city": "x"}', "{", "}", "[", "]", "(", ")", '"'),
            *(
                "get_weather",
                "clock",
                "f(a='x')",
                "=",
                ":",
                ",",
                "'",
                "\n",
                " ",
                "text",
                "<",
                ">",
                "|",
            ),
            *(
                "<think>",
                "</think>",
                "<|im_end|>",
                "functions.",
                "0",
                'name="f"',
                "to=user",
                "all\n",
            ),
        ]
    )
    | st.integers(0, 30),
    max_size=14,
)


@settings(max_examples=400, deadline=None)
@given(
    name=st.sampled_from(sorted(FORMAT_OF)),
    pieces=PIECES,
    cuts=st.lists(st.integers(0, 300), max_size=6),
)
def test_no_cutting_changes_what_is_understood(
    name: str, pieces: list[str | int], cuts: list[int]
) -> None:
    chat = template(name)
    marks = sorted(chat.markers)
    text = "".join(marks[p % len(marks)] if isinstance(p, int) else p for p in pieces)
    whole = chat.parse(text, TOOLS, "")
    parser = chat.parser(TOOLS, "")
    at = sorted({min(cut, len(text)) for cut in cuts} | {0, len(text)})
    for start, end in pairwise(at):
        parser.feed(text[start:end])
    assert parser.finish() == whole
    for call in whole.tool_calls or []:
        assert isinstance(json.loads(call.function.arguments), dict)


@pytest.mark.parametrize(
    "name", ["qwen_coder_calls", "gemma_calls", "lfm2_calls", "kimi_k3_calls", "kimi_k2_calls"]
)
def test_a_long_call_in_small_pieces_is_read_in_linear_time(name: str) -> None:
    city = 'a line with "quotes" and <tags> </p ' * 5000
    prompt, answer = rendered(name, [("get_weather", {"city": city, "days": 1})])
    parser = template(name).parser(TOOLS, prompt)
    begin = time.thread_time()
    for n in range(0, len(answer), 3):
        parser.feed(answer[n : n + 3])
    (call,) = parser.finish().tool_calls or []
    assert call.function.parse_arguments() == {"city": city, "days": 1}
    assert time.thread_time() - begin < 3.0

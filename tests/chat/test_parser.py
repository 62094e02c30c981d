"""Answers: whole, in pieces, with calls, with reasoning, and malformed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mofa_gguf.chat import Call, ChatTemplate, OutputParser
from mofa_gguf.contract import (
    ChatCompletionChunk,
    ChatMessage,
    ChunkChoice,
    ChunkDelta,
    FinishReason,
    ResponseGatherer,
    Role,
    stream_violations,
)

Make = Callable[[str], ChatTemplate]

FOLDER = Path(__file__).parent.parent / "data" / "chat" / "templates"
TEMPLATES = {
    format: ChatTemplate((FOLDER / f"{name}.jinja").read_text("utf-8"), eos_token="</s>")
    for format, name in (
        ("hermes", "chatml_with_tools"),
        ("llama", "json_calls"),
        ("mistral", "listed_calls"),
    )
}
TOOLS = [{"type": "function", "function": {"name": name}} for name in ("f", "g")]


@dataclass(frozen=True)
class Case:
    """An answer and what it means: text, reasoning, and calls as (name, arguments)."""

    template: str
    text: str
    content: str | None = ""
    calls: list[tuple[str, Any]] = field(default_factory=list)
    reasoning: str | None = None
    prompt: str | None = None


CASES = {
    # Text
    "nothing": Case("hermes", ""),
    "text": Case("hermes", "Hello there.", "Hello there."),
    "white space stays": Case("hermes", "  a\n\n b \n", "  a\n\n b \n"),
    "only white space": Case("hermes", " \n ", " \n "),
    "unicode": Case("hermes", "你好 👩‍👩‍👧 e\u0301", "你好 👩‍👩‍👧 e\u0301"),
    "half a marker at the end": Case("hermes", "see <tool_ca", "see <tool_ca"),
    "almost a marker": Case("hermes", "<tool_calm> <tool <<tool_", "<tool_calm> <tool <<tool_"),
    "the end of the turn": Case("hermes", "Done.<|im_end|>\n", "Done."),
    "the end of the turn inside": Case("hermes", "a<|im_end|> b", "a<|im_end|> b"),
    "another end": Case("mistral", "Done.</s>", "Done."),
    # Hermes
    "one call": Case(
        "hermes",
        '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>',
        None,
        [("f", {"a": 1})],
    ),
    "text and a call": Case(
        "hermes",
        'Let me see.\n<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>',
        "Let me see.",
        [("f", {})],
    ),
    "text before and after": Case(
        "hermes",
        'Before. <tool_call>{"name": "f", "arguments": {}}</tool_call>\n\nAfter.\n',
        "Before. After.",
        [("f", {})],
    ),
    "text glued to a call": Case(
        "hermes",
        'Before.<tool_call>{"name": "f", "arguments": {}}</tool_call>After.',
        "Before.\nAfter.",
        [("f", {})],
    ),
    "parallel calls": Case(
        "hermes",
        '<tool_call>\n{"name": "f", "arguments": {"a": [1, {"b": null}]}}\n</tool_call>\n'
        '<tool_call>\n{"name": "g", "arguments": {}}\n</tool_call><|im_end|>',
        None,
        [("f", {"a": [1, {"b": None}]}), ("g", {})],
    ),
    "two calls in one tag": Case(
        "hermes",
        '<tool_call>{"name": "f", "arguments": {}}\n{"name": "g", "arguments": {}}</tool_call>',
        None,
        [("f", {}), ("g", {})],
    ),
    "a list of calls": Case(
        "hermes",
        '<tool_call>[{"name": "f", "arguments": {}}, {"name": "g"}]</tool_call>',
        None,
        [("f", {}), ("g", {})],
    ),
    "markers and brackets inside strings": Case(
        "hermes",
        '<tool_call>{"name": "f", "arguments": {"a": "}\\"</tool_call>{[\\\\"}}</tool_call>',
        None,
        [("f", {"a": '}"</tool_call>{[\\'})],
    ),
    "escapes": Case(
        "hermes",
        '<tool_call>{"name": "f", "arguments": {"a": "\\u00e9\\n\\t\\/ é"}}</tool_call>',
        None,
        [("f", {"a": "é\n\t/ é"})],
    ),
    "no closing tag": Case(
        "hermes", '<tool_call>{"name": "f", "arguments": {}}', None, [("f", {})]
    ),
    "a brace too few": Case(
        "hermes",
        '<tool_call>{"name": "f", "arguments": {"a": 1}</tool_call>',
        None,
        [("f", {"a": 1})],
    ),
    "a brace too many": Case(
        "hermes", '<tool_call>{"name": "f", "arguments": {}}}\n</tool_call>', None, [("f", {})]
    ),
    "a line break inside a string": Case(
        "hermes",
        '<tool_call>{"name": "f", "arguments": {"a": "x\ny"}}</tool_call>',
        None,
        [("f", {"a": "x\ny"})],
    ),
    "arguments as text": Case(
        "hermes",
        '<tool_call>{"name": "f", "arguments": "{\\"a\\": 1}"}</tool_call>',
        None,
        [("f", {"a": 1})],
    ),
    "parameters": Case(
        "hermes",
        '<tool_call>{"name": "f", "parameters": {"a": 1}}</tool_call>',
        None,
        [("f", {"a": 1})],
    ),
    "the shape of the API": Case(
        "hermes",
        '<tool_call>{"type": "function", "function": {"name": "f", "arguments": "{}"}}</tool_call>',
        None,
        [("f", {})],
    ),
    "no arguments": Case("hermes", '<tool_call>{"name": "f"}</tool_call>', None, [("f", {})]),
    "cut off inside a call": Case(
        "hermes",
        'See: <tool_call>{"name": "f", "arguments": {"a": "b',
        'See: <tool_call>{"name": "f", "arguments": {"a": "b',
    ),
    "cut off in the second call": Case(
        "hermes",
        '<tool_call>{"name": "f", "arguments": {}}</tool_call>\n<tool_call>{"name": ',
        '<tool_call>{"name":',
        [("f", {})],
    ),
    "no JSON": Case("hermes", "<tool_call>call f!</tool_call>", "<tool_call>call f!</tool_call>"),
    "no quotes": Case(
        "hermes", "<tool_call>{name: f}</tool_call> x", "<tool_call>{name: f}</tool_call> x"
    ),
    "JSON that is no call": Case(
        "hermes", '<tool_call>{"a": 1}</tool_call>', '<tool_call>{"a": 1}</tool_call>'
    ),
    "arguments that are a list": Case(
        "hermes",
        '<tool_call>{"name": "f", "arguments": [1]}</tool_call>',
        '<tool_call>{"name": "f", "arguments": [1]}</tool_call>',
    ),
    "NaN is not JSON": Case(
        "hermes",
        '<tool_call>{"name": "f", "arguments": {"a": NaN}}</tool_call>',
        '<tool_call>{"name": "f", "arguments": {"a": NaN}}</tool_call>',
    ),
    "a wrong call and a right one": Case(
        "hermes",
        '<tool_call>oops</tool_call>\n<tool_call>{"name": "f", "arguments": {}}</tool_call>',
        "<tool_call>oops</tool_call>",
        [("f", {})],
    ),
    # Reasoning
    "reasoning": Case(
        "hermes", "<think>\nHm, 2 < 3.\n</think>\n\nYes.", "Yes.", reasoning="Hm, 2 < 3."
    ),
    "reasoning and a call": Case(
        "hermes",
        '<think>\nHm.\n</think>\n\n<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>',
        None,
        [("f", {})],
        reasoning="Hm.",
    ),
    "calls inside reasoning are thoughts": Case(
        "hermes",
        '<think>I could <tool_call>{"name": "f"}</tool_call>.</think>No.',
        "No.",
        reasoning='I could <tool_call>{"name": "f"}</tool_call>.',
    ),
    "empty reasoning": Case("hermes", "<think>\n\n</think>\n\nHi", "Hi"),
    "reasoning without end": Case("hermes", "\n<think>\nHm", "", reasoning="Hm"),
    "reasoning in the middle is text": Case("hermes", "a <think>b</think>", "a <think>b</think>"),
    "reasoning opened by the prompt": Case(
        "hermes", "Hm.\n</think>\n\nHi", "Hi", reasoning="Hm.", prompt="<|im_start|>x\n<think>\n"
    ),
    "reasoning opened twice": Case(
        "hermes", "<think>\nHm.</think>Hi", "Hi", reasoning="Hm.", prompt="<think>\n"
    ),
    "reasoning closed by the prompt": Case(
        "hermes", "Hi", "Hi", prompt="<|im_start|>assistant\n<think>\n\n</think>\n\n"
    ),
    # Llama
    "bare call": Case("llama", '{"name": "f", "parameters": {"a": 1}}', None, [("f", {"a": 1})]),
    "bare call in white space": Case(
        "llama", '\n {"name": "f", "parameters": {}} \n<|eot|>', None, [("f", {})]
    ),
    "bare calls": Case(
        "llama",
        '{"name": "f", "parameters": {}}; {"name": "g", "parameters": {"a": 1}}',
        None,
        [("f", {}), ("g", {"a": 1})],
    ),
    "bare call of a tool that was not offered": Case(
        "llama", '{"name": "h", "parameters": {}}', '{"name": "h", "parameters": {}}'
    ),
    "bare JSON": Case("llama", ' {"answer": [1, 2]}', ' {"answer": [1, 2]}'),
    "bare JSON with a name": Case("llama", '{"name": "Ann"}', '{"name": "Ann"}'),
    "JSON behind text": Case(
        "llama", 'So: {"name": "f", "parameters": {}}', 'So: {"name": "f", "parameters": {}}'
    ),
    "python tag": Case(
        "llama", '<|python_tag|>{"name": "f", "parameters": {"a": 1}}', None, [("f", {"a": 1})]
    ),
    "built-in tool": Case(
        "llama",
        '<|python_tag|>search.call(query="a \\"b\\"", n=3)',
        None,
        [("search", {"query": 'a "b"', "n": 3})],
    ),
    "python that is no call": Case(
        "llama", "<|python_tag|>print('hello')", "<|python_tag|>print('hello')"
    ),
    "python that computes": Case(
        "llama", "<|python_tag|>f.call(a=open('x'))", "<|python_tag|>f.call(a=open('x'))"
    ),
    # Mistral
    "listed calls": Case(
        "mistral",
        '[TOOL_CALLS][{"name": "f", "arguments": {"a": 1}, "id": "abcdefghi"}, '
        '{"name": "g", "arguments": {}}]</s>',
        None,
        [("f", {"a": 1}), ("g", {})],
    ),
    "list cut off": Case(
        "mistral",
        '[TOOL_CALLS][{"name": "f", "arguments": {}}, {"na',
        '{"na',
        [("f", {})],
    ),
    "named calls": Case(
        "mistral",
        '[TOOL_CALLS]f[CALL_ID]abcdefghi[ARGS]{"a": 1}[TOOL_CALLS]g[ARGS]{}[TOOL_CALLS]f{}',
        None,
        [("f", {"a": 1}), ("g", {}), ("f", {})],
    ),
    "a list that is none": Case("mistral", "[TOOL_CALLS][ see ]", "[TOOL_CALLS][ see ]"),
    "a name without arguments": Case("mistral", "[TOOL_CALLS]f!", "[TOOL_CALLS]f!"),
    "square brackets": Case("mistral", "a [1] [TOOL] [[TOOL_CALLS", "a [1] [TOOL] [[TOOL_CALLS"),
}


@pytest.fixture(params=sorted(CASES))
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


def parser_of(case: Case) -> OutputParser:
    return TEMPLATES[case.template].parser(TOOLS, case.prompt)


def run(parser: OutputParser, pieces: list[str]) -> tuple[ChatMessage, list[ChunkDelta]]:
    deltas = [delta for piece in pieces for delta in parser.feed(piece)]
    message = parser.finish()
    return message, deltas + parser.final_deltas


def gathered(deltas: list[ChunkDelta]) -> ChatMessage:
    """The message that a client makes of the deltas; checks that they obey MoFA's rules."""
    chunks = [chunk(ChunkDelta(role=Role.ASSISTANT)), *map(chunk, deltas)]
    chunks.append(chunk(ChunkDelta(), FinishReason.STOP))
    assert stream_violations(chunks) == []
    gatherer = ResponseGatherer()
    for each in chunks:
        gatherer.add(each)
    return gatherer.response().choices[0].message


def chunk(delta: ChunkDelta, finish_reason: FinishReason | None = None) -> ChatCompletionChunk:
    choice = ChunkChoice(delta=delta, finish_reason=finish_reason)
    return ChatCompletionChunk(id="1", created=0, model="m", choices=[choice])


def test_a_whole_answer_is_understood(case: Case) -> None:
    message = TEMPLATES[case.template].parse(case.text, TOOLS, case.prompt)
    calls = [(c.function.name, json.loads(c.function.arguments)) for c in message.tool_calls or []]
    assert calls == case.calls
    assert message.content == case.content
    assert message.reasoning_content == case.reasoning
    assert message.role == Role.ASSISTANT


def test_an_answer_cut_in_two_anywhere_gives_the_same_message(case: Case) -> None:
    whole, _ = run(parser_of(case), [case.text])
    for n in range(len(case.text) + 1):
        message, deltas = run(parser_of(case), [case.text[:n], case.text[n:]])
        assert message == whole
        assert gathered(deltas) == whole


def test_an_answer_letter_by_letter_gives_the_same_message(case: Case) -> None:
    whole, _ = run(parser_of(case), [case.text])
    message, deltas = run(parser_of(case), list(case.text))
    assert message == whole
    assert gathered(deltas) == whole


PIECES = st.lists(
    st.sampled_from(
        [
            *("<tool_call>", "</tool_call>", "<think>", "</think>", "<|im_end|>", "</s>"),
            *("[TOOL_CALLS]", "[ARGS]", "[CALL_ID]", "<|python_tag|>", "<|eot|>"),
            *('{"name": "f", "arguments": {"a": "}\\""}}', '{"name": "g", "parameters": {}}'),
            *('{"name": "f"', "{", "}", "[", "]", '"', "\\", ",", ";", "f", "f.call(a=1)"),
            *(" ", "\n", "text", "é", "<", "<tool", "\r\n\t"),
        ]
    ),
    max_size=12,
)


@settings(max_examples=300, deadline=None)
@given(
    template=st.sampled_from(sorted(TEMPLATES)),
    pieces=PIECES,
    cuts=st.lists(st.integers(0, 400), max_size=8),
    opened=st.booleans(),
)
def test_no_cutting_changes_the_message(
    template: str, pieces: list[str], cuts: list[int], opened: bool
) -> None:
    text = "".join(pieces)
    case = Case(template, text, prompt="<think>" if opened else "")
    whole, whole_deltas = run(parser_of(case), [text])
    assert gathered(whole_deltas) == whole

    at = sorted({min(cut, len(text)) for cut in cuts} | {0, len(text)})
    parts = [text[a:b] for a, b in pairwise(at)]
    message, deltas = run(parser_of(case), parts)
    assert message == whole
    assert gathered(deltas) == whole
    for call in message.tool_calls or []:
        assert isinstance(json.loads(call.function.arguments), dict)


@settings(max_examples=100, deadline=None)
@given(
    arguments=st.dictionaries(
        st.text(max_size=5),
        st.recursive(
            st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text(max_size=8),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
            max_leaves=5,
        ),
        max_size=3,
    ),
    template=st.sampled_from(sorted(TEMPLATES)),
)
def test_calls_come_back_from_the_templates_own_rendering(
    arguments: dict[str, Any], template: str
) -> None:
    tools = TEMPLATES[template]
    ask: dict[str, Any] = {"role": "user", "content": "?"}
    function = {"name": "f", "arguments": arguments}
    calls = [{"id": "abcdefghi", "type": "function", "function": function}]
    prompt = tools.render([ask], TOOLS)
    answered = [ask, {"role": "assistant", "content": "", "tool_calls": calls}]
    whole = tools.render(answered, TOOLS, add_generation_prompt=False)
    if template == "mistral":  # shows its tools with the last message only
        prompt = tools.render([ask])
    assert whole.startswith(prompt)
    message = tools.parse(whole[len(prompt) :], TOOLS, prompt)
    assert message.content is None
    assert [c.function.parse_arguments() for c in message.tool_calls or []] == [arguments]


def test_text_is_released_as_soon_as_it_is_certain(hermes: ChatTemplate) -> None:
    parser = hermes.parser(TOOLS)
    steps = ["Hel", "lo <", "b> ", "x<tool", "_call>", "{", "no"]
    released = ["".join(d.content or "" for d in parser.feed(step)) for step in steps]
    assert released == ["Hel", "lo", " <b>", " x", "", "", "<tool_call>{no"]


def test_a_call_is_released_at_its_last_bracket(hermes: ChatTemplate) -> None:
    parser = hermes.parser(TOOLS)
    assert parser.feed('<tool_call>\n{"name": "f", "arguments": {"a": 1}') == []
    start, arguments = parser.feed("}")
    assert start.tool_calls is not None
    assert arguments.tool_calls is not None
    first, later = start.tool_calls[0], arguments.tool_calls[0]
    assert first.to_dict() == {
        "index": 0,
        "id": first.id,
        "type": "function",
        "function": {"name": "f", "arguments": ""},
    }
    assert later.to_dict() == {"index": 0, "function": {"arguments": '{"a": 1}'}}
    assert parser.feed("\n</tool_call>") == []


def test_a_json_answer_of_other_keys_is_not_held_back(llama: ChatTemplate) -> None:
    parser = llama.parser(TOOLS)
    assert parser.feed('{"answer"')[0].content == '{"answer"'


def test_without_tools_nothing_is_a_call(hermes: ChatTemplate, llama: ChatTemplate) -> None:
    text = '<tool_call>{"name": "f", "arguments": {}}</tool_call>'
    assert hermes.parse(text, tools=[]).content == text
    assert llama.parse('{"name": "f", "parameters": {}}').tool_calls is None


def test_without_knowing_the_tools_marked_calls_are_read(hermes: ChatTemplate) -> None:
    message = hermes.parse('<tool_call>{"name": "f", "arguments": {}}</tool_call>')
    assert [call.function.name for call in message.tool_calls or []] == ["f"]


def test_a_templates_own_habit_counts_where_there_is_no_prompt(make: Make) -> None:
    template = make(
        "{% for m in messages %}{{ m.content.split('</think>')[-1] }}{% endfor %}"
        "{% if add_generation_prompt %}<think>\n{% endif %}"
    )
    message = template.parse("Hm.</think>Hi")
    assert (message.reasoning_content, message.content) == ("Hm.", "Hi")


def test_a_model_keeps_the_ids_it_writes(mistral: ChatTemplate) -> None:
    text = '[TOOL_CALLS][{"name": "f", "arguments": {}, "id": "abcdefghi"}]'
    message = mistral.parse(text, TOOLS)
    assert [call.id for call in message.tool_calls or []] == ["abcdefghi"]


def test_made_ids_are_nine_letters_and_differ_by_call_and_prompt(hermes: ChatTemplate) -> None:
    text = '<tool_call>{"name": "f", "arguments": {}}</tool_call>' * 2

    def ids(prompt: str) -> list[str]:
        return [call.id for call in hermes.parse(text, TOOLS, prompt).tool_calls or []]

    assert ids("one") == ids("one")
    assert len({*ids("one"), *ids("two")}) == 4
    assert all(len(id) == 9 and id.isascii() and id.isalnum() for id in ids("one"))


def test_callers_can_make_the_ids(hermes: ChatTemplate) -> None:
    def number(index: int, call: Call) -> str:
        return f"{call.name}-{index}"

    parser = hermes.parser(TOOLS, ids=number)
    parser.feed('<tool_call>{"name": "f", "arguments": {}}</tool_call>')
    assert [call.id for call in parser.finish().tool_calls or []] == ["f-0"]


def test_a_finished_parser_takes_no_more(hermes: ChatTemplate) -> None:
    parser = hermes.parser()
    parser.feed("a")
    assert parser.finish() is parser.finish()
    with pytest.raises(ValueError, match="finished"):
        parser.feed("b")


def test_a_long_call_in_small_pieces_is_read_in_linear_time(hermes: ChatTemplate) -> None:
    value = 'line\n with "quotes" ' * 5000
    answer = f'<tool_call>{{"name": "f", "arguments": {json.dumps({"a": value})}}}</tool_call>'
    parser = hermes.parser(TOOLS)
    begin = time.thread_time()
    for n in range(0, len(answer), 3):
        parser.feed(answer[n : n + 3])
    (call,) = parser.finish().tool_calls or []
    assert call.function.parse_arguments() == {"a": value}
    assert time.thread_time() - begin < 2.0


def test_deeply_nested_arguments_are_text_and_no_crash(hermes: ChatTemplate) -> None:
    text = '<tool_call>{"name": "f", "arguments": ' + '{"a":' * 100_000
    assert hermes.parse(text, TOOLS).content == text

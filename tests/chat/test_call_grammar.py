"""Grammars of calls: whatever the logits say, what comes out are valid calls of offered tools."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from mofa_gguf.chat import ChatTemplate
from mofa_gguf.chat.errors import CallsNotDescribable
from mofa_gguf.engine.structure.constraint import ConstraintFactory
from mofa_gguf.engine.tokens.vocab import Vocab
from tests.support.call_families import FORMAT_OF, TOOLS, template, tool
from tests.support.tiny_vocab import EOS, MARKS

N_RUNS = 40
ASK = {"role": "user", "content": "?"}


def sample(factory: ConstraintFactory, vocab: Vocab, grammar: str, rng: np.random.Generator) -> str:
    """What random logits give under a grammar."""
    constraint = factory.lark(grammar)
    tokens: list[int] = []
    while not constraint.stopped:
        assert len(tokens) < 5000
        logits = rng.normal(size=vocab.n_tokens).astype(np.float32)
        constraint.mask(logits)
        token = int(logits.argmax())
        assert np.isfinite(logits[token])
        if token == EOS:
            break
        constraint.accept(token)
        tokens.append(token)
    return b"".join(vocab.piece(token, special=True) for token in tokens).decode("utf-8")


def check_call(name: str, arguments: dict[str, Any]) -> None:
    """That the arguments are valid under the tool's schema."""
    if name == "clock":
        assert arguments == {}
        return
    assert name == "get_weather"
    assert {"city", "days"} <= arguments.keys()
    for key, value in arguments.items():
        assert is_valid(key, value), (key, value)


def is_valid(key: str, value: Any) -> bool:
    if key == "city":
        return isinstance(value, str) and len(value) <= 4
    if key == "days":
        return type(value) is int and 0 <= value <= 99
    if key == "unit":
        return value in ("C", "F", "deg C")
    if key == "exact":
        return isinstance(value, bool)
    if key == "hours":
        return len(value) <= 2 and all(type(hour) is int and hour <= 24 for hour in value)
    if key == "place":
        code_only = value.keys() <= {"code", "lat"} and isinstance(value["code"], str)
        return code_only and len(value["code"]) <= 3
    return False


@pytest.mark.parametrize("name", sorted(FORMAT_OF))
def test_random_outputs_are_valid_calls(
    factory: ConstraintFactory, vocab: Vocab, name: str
) -> None:
    chat = template(name)
    prompt = chat.render([ASK], TOOLS)
    parallel = chat.capabilities.parallel_tool_calls
    grammar = chat.forms(prompt, tokens=MARKS).calls(TOOLS)
    rng = np.random.default_rng(11)
    numbers, names = set(), set()
    for _ in range(N_RUNS):
        text = sample(factory, vocab, grammar, rng)
        message = chat.parse(text, TOOLS, prompt)
        assert message.content is None, text
        calls = message.tool_calls or []
        numbers.add(len(calls))
        for call in calls:
            names.add(call.function.name)
            check_call(call.function.name, json.loads(call.function.arguments))
    assert 0 not in numbers
    assert names == {"get_weather", "clock"}
    if FORMAT_OF[name] != "harmony":  # the end of a call ends the turn
        assert (max(numbers) > 1) == parallel


@pytest.mark.parametrize("name", sorted(FORMAT_OF))
def test_one_call_is_one_call(factory: ConstraintFactory, vocab: Vocab, name: str) -> None:
    chat = template(name)
    prompt = chat.render([ASK], TOOLS)
    grammar = chat.forms(prompt, tokens=MARKS).calls([TOOLS[1]], parallel=False)
    text = sample(factory, vocab, grammar, np.random.default_rng(1))
    (call,) = chat.parse(text, TOOLS, prompt).tool_calls or []
    assert (call.function.name, call.function.arguments) == ("clock", "{}")


def test_marks_that_are_tokens_are_meant_as_tokens(
    factory: ConstraintFactory, vocab: Vocab
) -> None:
    chat = template("chatml_with_tools")
    constraint = factory.lark(chat.forms("", tokens=MARKS).calls(TOOLS))
    logits = np.zeros(vocab.n_tokens, dtype=np.float32)
    constraint.mask(logits)
    assert np.flatnonzero(np.isfinite(logits)).tolist() == [MARKS["<tool_call>"]]


def test_what_stands_behind_reasoning_is_a_call_too(
    factory: ConstraintFactory, vocab: Vocab
) -> None:
    chat = template("chatml_with_tools")
    prompt = chat.render([ASK], TOOLS, thinking=True)
    assert prompt.endswith("<think>\n")
    forms = chat.forms(prompt, tokens=MARKS)
    assert forms.opened is not None
    assert (forms.opened.open, forms.opened.close) == ("<think>", "</think>")
    grammar = forms.calls(TOOLS, parallel=False, resumed=True)
    for seed in range(10):
        text = "Hm.</think>" + sample(factory, vocab, grammar, np.random.default_rng(seed))
        message = chat.parse(text, TOOLS, prompt)
        assert (message.content, message.reasoning_content) == (None, "Hm.")
        (call,) = message.tool_calls or []
        check_call(call.function.name, call.function.parse_arguments())


def test_what_the_prompt_opened_is_not_opened_again() -> None:
    chat = template("functionary_calls")
    prompt = chat.render([ASK], TOOLS)
    assert prompt.endswith(">>>")
    assert '">>>' not in chat.forms(prompt).calls(TOOLS, parallel=False)
    assert '">>>' in chat.forms("").calls(TOOLS, parallel=False)


ANY = {"type": "string"}
DESCRIBABLE = {
    "a pattern": {"type": "string", "pattern": "^[a-c]{2}$"},
    "text or null": {"type": ["string", "null"], "description": "x"},
    "a number or null": {"type": ["integer", "null"], "maximum": 9},
    "one of a few": {"enum": ["a", 1, None]},
    "only one": {"const": "x y"},
    "a reference": {"$ref": "#/$defs/bit"},
    "either": {"anyOf": [{"type": "boolean"}, {"type": "null"}]},
    "text of a length": {"type": "string", "minLength": 2, "maxLength": 3},
}


@pytest.mark.parametrize("title", sorted(DESCRIBABLE))
@pytest.mark.parametrize("name", ["qwen_coder_calls", "chatml_with_tools"])
def test_kinds_of_arguments_that_can_be_described(
    factory: ConstraintFactory, vocab: Vocab, name: str, title: str
) -> None:
    schema = DESCRIBABLE[title]
    definition = tool("f", {"a": schema}, ["a"])
    definition["function"]["parameters"]["$defs"] = {"bit": {"enum": [0, 1]}}
    chat = template(name)
    grammar = chat.forms("", tokens=MARKS).calls([definition], parallel=False)
    for seed in range(5):
        logits_seed = np.random.default_rng(seed)
        if title == "text or null":
            factory.lark(grammar)  # any text: without a bound, random bytes never end it
            continue
        text = sample(factory, vocab, grammar, logits_seed)
        (call,) = chat.parse(text, [definition]).tool_calls or []
        value = call.function.parse_arguments()["a"]
        if title == "a pattern":
            assert len(value) == 2
            assert set(value) <= set("abc")
        elif title == "a number or null":
            assert value is None or value <= 9
        elif title == "one of a few":
            assert value in ("a", 1, None)
        elif title == "only one":
            assert value == "x y"
        elif title == "a reference":
            assert value in (0, 1)
        elif title == "either":
            assert value in (True, False, None)
        else:
            assert len(value) in (2, 3)


@pytest.mark.parametrize(
    ("name", "schema", "what"),
    [
        ("qwen_coder_calls", {"type": "string", "format": "date"}, "'format'"),
        ("qwen_coder_calls", {"type": "string", "pattern": "^a|b$"}, "pattern"),
        ("qwen_coder_calls", {"enum": ["</parameter>"]}, "</parameter>"),
        ("gemma_calls", {"type": "object", "patternProperties": {"a": {}}}, "patternProperties"),
        ("gemma_calls", {"type": ["string", "array"], "minItems": 1}, "several types"),
        ("lfm2_calls", {"type": ["string", "array"], "minItems": 1}, "types"),
    ],
)
def test_what_cannot_be_described_is_refused_by_name(
    name: str, schema: dict[str, Any], what: str
) -> None:
    with pytest.raises(CallsNotDescribable, match="tool 'f'") as caught:
        template(name).forms("").calls([tool("f", {"a": schema}, ["a"])])
    assert what in str(caught.value)
    assert caught.value.tool == "f"


def test_a_schema_without_a_list_of_other_properties_has_none(
    factory: ConstraintFactory, vocab: Vocab
) -> None:
    definition = {"type": "function", "function": {"name": "f", "parameters": {"properties": {}}}}
    chat: ChatTemplate = template("chatml_with_tools")
    grammar = chat.forms("", tokens=MARKS).calls([definition], parallel=False)
    text = sample(factory, vocab, grammar, np.random.default_rng(3))
    (call,) = chat.parse(text, [definition]).tool_calls or []
    assert call.function.arguments == "{}"

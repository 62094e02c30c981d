"""The demo model's dialogue generator: deterministic, right, and honest about what is held out."""

from __future__ import annotations

import itertools
import json
import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

from demo import skills
from demo.answers import parse_answer
from demo.cases import Dialogue, Message, is_held_out
from demo.dialogues import training_dialogues
from demo.held_out import CATEGORIES, held_out_dialogues
from demo.scoring import calls_of, is_right, score
from demo.template import render

N_TRAINING = 1500
N_HELD_OUT = 25


@pytest.fixture(scope="module")
def training() -> list[Dialogue]:
    return list(itertools.islice(training_dialogues(seed=5), N_TRAINING))


@pytest.fixture(scope="module")
def held_out() -> list[Dialogue]:
    return held_out_dialogues(2, N_HELD_OUT)


def test_the_same_seed_gives_the_same_dialogues_and_another_seed_others(
    training: list[Dialogue],
) -> None:
    same = list(itertools.islice(training_dialogues(seed=5), 50))
    other = list(itertools.islice(training_dialogues(seed=6), 50))
    assert same == training[:50]
    assert other != training[:50]
    assert held_out_dialogues(2, 3) == held_out_dialogues(2, 3)


def test_training_and_held_out_dialogues_share_no_combination(
    training: list[Dialogue], held_out: list[Dialogue]
) -> None:
    trained = {e.key for d in training for e in d.exchanges if e.key}
    scored = {e.key for d in held_out for e in d.exchanges if e.key}
    assert not trained & scored
    assert not any(is_held_out(key) for key in trained)
    assert all(is_held_out(key) for key in scored)


def test_a_sum_and_its_mirror_image_are_one_combination() -> None:
    assert skills.sum_key("+", 3, 14) == skills.sum_key("+", 14, 3)
    assert skills.sum_key("-", 3, 14) != skills.sum_key("-", 14, 3)


def test_every_held_out_dialogue_asks_for_something_that_is_held_out(
    held_out: list[Dialogue],
) -> None:
    asked_by_system = {"system prompt"}
    for dialogue in held_out:
        if dialogue.category not in asked_by_system:
            assert any(exchange.key for exchange in dialogue.exchanges), dialogue


def test_every_category_is_scored_with_the_asked_number_of_cases(held_out: list[Dialogue]) -> None:
    found = [d.category for d in held_out]
    assert {c: found.count(c) for c in CATEGORIES} == dict.fromkeys(CATEGORIES, N_HELD_OUT)


def test_small_sums_are_answered_right(training: list[Dialogue]) -> None:
    n_sums = 0
    for dialogue in training:
        for exchange in dialogue.exchanges:
            text = exchange.messages[-1]["content"]
            match = re.search(r"(-?\d+) ([+-]) (\d+) = (-?\d+)\.$", text)
            if exchange.category != "arithmetic" or not match:
                continue
            a, op, b, value = match.groups()
            assert int(value) == (int(a) + int(b) if op == "+" else int(a) - int(b)), text
            assert max(int(a), int(b)) <= skills.MAX_OPERAND
            n_sums += 1
    assert n_sums > 300


def test_every_tool_call_is_json_that_names_an_offered_tool_and_its_arguments(
    training: list[Dialogue], held_out: list[Dialogue]
) -> None:
    n_calls = 0
    for dialogue in training + held_out:
        offered = {t["function"]["name"]: t["function"]["parameters"] for t in dialogue.tools}
        text = render(dialogue.messages, dialogue.tools)
        for body in re.findall(r"<tool_call>\n(.*?)\n</tool_call>", text):
            parsed = json.loads(body)
            assert set(parsed) == {"name", "arguments"}
            assert set(parsed["arguments"]) <= set(offered[parsed["name"]]["properties"])
            n_calls += 1
    assert n_calls > 300


def test_every_assistant_message_of_the_data_passes_its_own_check(
    training: list[Dialogue], held_out: list[Dialogue]
) -> None:
    for dialogue in training + held_out:
        for exchange in dialogue.exchanges:
            answers = [m for m in exchange.messages if m["role"] == "assistant"]
            assert len(answers) == len(exchange.checks)
            for check, message in zip(exchange.checks, answers, strict=True):
                assert is_right(check, message), (check, message)


def test_the_answer_from_a_tool_is_judged_by_whole_values(held_out: list[Dialogue]) -> None:
    exchange = next(
        d.exchanges[0]
        for d in held_out
        if d.category == "calculator tool" and d.exchanges[0].checks[1].values[0].isdigit()
    )
    value = exchange.checks[1].values[0]
    for wrong in (f"{value}7", f"-{value}", f"{value}.5", f"1{value}", ""):
        assert not is_right(exchange.checks[1], {"role": "assistant", "content": f"= {wrong}."})
    assert is_right(exchange.checks[1], {"role": "assistant", "content": f"It is {value}."})


def test_a_perfect_answerer_scores_everything_and_a_silent_one_nothing() -> None:
    wanted = {
        json.dumps([m["content"] for m in history]): message
        for d in held_out_dialogues(2, 4)
        for history, message in _assistant_turns(d)
    }
    perfect = score(
        lambda messages, tools: wanted[json.dumps([m["content"] for m in messages])],
        seed=2,
        n_per_category=4,
    )
    silent = score(lambda messages, tools: {"content": ""}, seed=2, n_per_category=4)
    assert all(entry.right == entry.total == 4 for entry in perfect.values())
    assert all(entry.right == 0 and len(entry.failures) == 4 for entry in silent.values())


def _assistant_turns(dialogue: Dialogue) -> list[tuple[list[Message], Message]]:
    messages = dialogue.messages
    return [(messages[:i], m) for i, m in enumerate(messages) if m["role"] == "assistant"]


def test_the_template_renders_a_tool_round_trip() -> None:
    tool = {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Weather",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        },
    }
    call = {"id": "1", "type": "function"}
    messages: list[Message] = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": [{"type": "text", "text": "Weather in Rome?"}]},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {**call, "function": {"name": "get_weather", "arguments": {"city": "Rome"}}}
            ],
        },
        {"role": "tool", "tool_call_id": "1", "content": "sunny"},
    ]
    expected = (
        "<|im_start|>system\nBe kind.\n\nYou can call these tools:\n<tools>\n"
        '{"name": "get_weather", "description": "Weather", "arguments": ["city"]}\n'
        "</tools><|im_end|>\n<|im_start|>user\nWeather in Rome?<|im_end|>\n"
        '<|im_start|>assistant\n<tool_call>\n{"name": "get_weather", "arguments": '
        '{"city": "Rome"}}\n</tool_call><|im_end|>\n<|im_start|>tool\n<tool_response>\nsunny\n'
        "</tool_response><|im_end|>\n<|im_start|>assistant\n"
    )
    assert render(messages, [tool], add_generation_prompt=True) == expected


def test_the_template_takes_arguments_as_json_text_or_as_an_object() -> None:
    def text(arguments: object) -> str:
        function = {"name": "f", "arguments": arguments}
        message = {"role": "assistant", "content": None, "tool_calls": [{"function": function}]}
        return render([message])

    assert text({"a": "b"}) == text('{"a": "b"}')


def test_a_tool_without_description_or_parameters_is_listed() -> None:
    text = render([{"role": "user", "content": "hi"}], [{"function": {"name": "ping"}}])
    assert '{"name": "ping", "arguments": []}' in text


def test_results_that_follow_each_other_share_one_turn() -> None:
    results = [{"role": "tool", "content": "a"}, {"role": "tool", "content": "b"}]
    text = render(results)
    assert text.count("<|im_start|>tool") == 1
    assert text.count("<tool_response>") == 2


def test_generated_text_becomes_a_message_with_calls() -> None:
    message = parse_answer('<tool_call>\n{"name": "f", "arguments": {"x": "1"}}\n</tool_call>')
    assert calls_of(message) == [("f", {"x": "1"})]
    assert parse_answer("Hello!") == {"role": "assistant", "content": "Hello!"}


@pytest.mark.parametrize("text", ["<tool_call>\n{broken", '<tool_call>{"name": "f"}</tool_call>'])
def test_a_broken_call_stays_text(text: str) -> None:
    assert parse_answer(text) == {"role": "assistant", "content": text}

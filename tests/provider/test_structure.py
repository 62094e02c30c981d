"""What an answer must look like, from request to parsed message: calls, forms, reasoning."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from mofa_gguf import (
    ChatCompletionRequest,
    ChatMessage,
    ConfigError,
    FinishReason,
    GGUFConfig,
    GGUFProvider,
    ProviderNotSupported,
    ResponseFormat,
    Tool,
    ToolChoice,
    stream_violations,
)
from mofa_gguf.engine.scheduling.scheduler import Scheduler, Task
from tests.provider.test_tool_choice import CLOCK, TEMPLATES, WEATHER, check_call
from tests.support.tiny_gguf import SPECIALS, TinyLlama, write_tiny_llama

MARKS = ("<tool_call>", "</tool_call>", "<think>", "</think>")
CALL, END_CALL, THINK, END_THINK = (256 + len(SPECIALS) + n for n in range(len(MARKS)))
END = 258
DATED = Tool.function(
    "dated",
    "",
    {
        "type": "object",
        "properties": {"on": {"type": "array", "items": {"type": "integer"}, "uniqueItems": True}},
        "required": ["on"],
    },
)
POINT = {
    "type": "object",
    "properties": {"x": {"type": "integer", "minimum": 0, "maximum": 9}, "up": {"type": "boolean"}},
    "required": ["x", "up"],
    "additionalProperties": False,
}


def write_model(path: Path, template: str, marks: tuple[str, ...] = MARKS) -> Path:
    shape = TinyLlama(
        n_ctx=2048, chat_template=(TEMPLATES / f"{template}.jinja").read_text("utf-8"), marks=marks
    )
    return write_tiny_llama(path, shape)


@pytest.fixture(scope="module")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with random weights whose template writes calls as Hermes does."""
    return write_model(tmp_path_factory.mktemp("structure") / "tiny.gguf", "chatml_with_tools")


@pytest.fixture
async def provider(model_path: Path) -> AsyncIterator[GGUFProvider]:
    async with GGUFProvider(GGUFConfig(model=str(model_path), n_threads=1)) as opened:
        yield opened


def ask(**options: Any) -> ChatCompletionRequest:
    defaults = {
        "messages": [ChatMessage.user("?")],
        "max_tokens": 300,
        "temperature": 1.5,
        "logit_bias": {str(THINK): -100},
    }
    return ChatCompletionRequest(**{**defaults, **options})


def calling(bias: dict[int, float] | None = None, **options: Any) -> ChatCompletionRequest:
    """A request whose answer begins a call, or ends, wherever it is free to."""
    bias = bias or {CALL: 60, END: 60}
    return ask(
        **{"tools": [WEATHER, CLOCK], "logit_bias": {str(k): v for k, v in bias.items()}, **options}
    )


async def answers(provider: GGUFProvider, request: ChatCompletionRequest, n: int) -> list[Any]:
    requests = (request.with_options({"seed": seed}) for seed in range(n))
    return list(await asyncio.gather(*(provider.chat(each) for each in requests)))


async def test_calls_that_the_model_begins_by_itself_are_valid(provider: GGUFProvider) -> None:
    numbers = set()
    for response in await answers(provider, calling(), 20):
        message = response.choices[0].message
        numbers.add(len(message.tool_calls or []))
        for call in message.tool_calls or []:
            check_call(call.function.name, json.loads(call.function.arguments))
        if response.finish_reason() is not FinishReason.LENGTH:
            assert not message.text_content()
            calls = FinishReason.TOOL_CALLS if message.tool_calls else FinishReason.STOP
            assert response.finish_reason() is calls
    assert 0 in numbers
    assert max(numbers) > 1


async def test_a_stream_with_calls_is_in_order(provider: GGUFProvider) -> None:
    request = calling({CALL: 60, END: 58}, seed=3)
    chunks = [chunk async for chunk in provider.chat_stream(request)]
    assert stream_violations(chunks) == []
    assert any(chunk.choices[0].delta.tool_calls for chunk in chunks)
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == ""


@pytest.mark.parametrize("options", [{"parallel_tool_calls": False}, {}])
async def test_one_call_where_only_one_is_wanted(
    provider: GGUFProvider, options: dict[str, Any]
) -> None:
    request = calling({CALL: 60}, max_tokens=700, **options)
    for response in await answers(provider, request, 6):
        calls = response.choices[0].message.tool_calls or []
        if options:
            assert len(calls) == 1
            assert response.finish_reason() is FinishReason.TOOL_CALLS
        else:
            assert len(calls) > 1
    if options:
        required = request.with_options({"tool_choice": ToolChoice.REQUIRED})
        for response in await answers(provider, required, 6):
            assert len(response.choices[0].message.tool_calls or []) == 1


async def test_a_call_survives_being_computed_again(
    model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    preempted: list[Task] = []
    preempt = Scheduler._preempt_youngest

    def noted(scheduler: Scheduler) -> Task:
        preempted.append(preempt(scheduler))
        return preempted[-1]

    monkeypatch.setattr(Scheduler, "_preempt_youngest", noted)
    config = GGUFConfig(model=str(model_path), n_threads=1, n_ctx=768, max_parallel=8)
    request = calling({CALL: 60}, max_tokens=200, messages=[ChatMessage.user("?")])
    async with GGUFProvider(config) as small:
        together = await answers(small, request, 8)
    assert preempted
    n_calls = 0
    for response in together:
        for call in response.choices[0].message.tool_calls or []:
            n_calls += 1
            check_call(call.function.name, json.loads(call.function.arguments))
    assert n_calls >= 8


async def test_reasoning_comes_first_and_marks_in_it_begin_nothing(provider: GGUFProvider) -> None:
    bias = {CALL: 60, END_THINK: 59.0}
    kwargs = {"thinking": True}
    request = calling(bias, chat_template_kwargs=kwargs, parallel_tool_calls=False, max_tokens=900)
    for response in await answers(provider, request, 6):
        message = response.choices[0].message
        (call,) = message.tool_calls or []
        check_call(call.function.name, json.loads(call.function.arguments))
    assert any(
        "<tool_call>" in (r.choices[0].message.reasoning_content or "")
        for r in await answers(provider, request, 12)
    )


async def test_a_tool_that_cannot_be_enforced_is_parsed_and_said_so(
    provider: GGUFProvider, caplog: pytest.LogCaptureFixture
) -> None:
    request = calling({CALL: 60}, tools=[DATED, CLOCK], parallel_tool_calls=False, max_tokens=900)
    with caplog.at_level(logging.WARNING, logger="mofa_gguf.provider"):
        (response,) = await answers(provider, request, 1)
    assert "'dated'" in caplog.text
    assert "uniqueItems" in caplog.text
    assert "'clock'" not in caplog.text
    assert response.usage is not None


async def test_a_strict_tool_that_cannot_be_enforced_is_refused(provider: GGUFProvider) -> None:
    strict = DATED.model_copy(
        update={"function_definition": DATED.function.model_copy(update={"strict": True})}
    )
    with pytest.raises(ConfigError, match=r"strict tool 'dated'.*uniqueItems") as caught:
        await provider.chat(calling(tools=[CLOCK, strict]))
    assert caught.value.field == "tools"
    # Nothing of it matters where tools are not offered.
    await provider.chat(calling(tools=[strict], tool_choice=ToolChoice.NONE, max_tokens=5))


async def test_an_answer_is_of_the_form_or_calls_a_tool(provider: GGUFProvider) -> None:
    form = ResponseFormat.json_schema(POINT)
    request = ask(tools=[WEATHER, CLOCK], response_format=form, max_tokens=900)
    found = []
    for bias in (-50, 50):
        biased = request.with_options({"logit_bias": {str(CALL): bias, str(THINK): -100}})
        found += [(bias > 0, response) for response in await answers(provider, biased, 8)]
    for calls, response in found:
        message = response.choices[0].message
        assert bool(message.tool_calls) == calls
        if message.tool_calls:
            assert message.content is None
            for call in message.tool_calls:
                check_call(call.function.name, json.loads(call.function.arguments))
        else:
            value = json.loads(message.text_content() or "")
            assert value["x"] in range(10)
            assert isinstance(value["up"], bool)


@pytest.mark.parametrize("opened", [True, False])
async def test_a_model_reasons_before_it_answers_in_a_form(
    provider: GGUFProvider, opened: bool
) -> None:
    request = ask(
        response_format=ResponseFormat.json_schema(POINT),
        chat_template_kwargs={"thinking": opened},
        logit_bias={str(THINK): 12, str(END_THINK): 13},
        max_tokens=900,
    )
    reasoning = []
    for response in await answers(provider, request, 8):
        message = response.choices[0].message
        assert json.loads(message.text_content() or "").keys() == {"x", "up"}
        reasoning.append(message.reasoning_content)
    assert any(reasoning)


FORMS: list[tuple[dict[str, Any], str]] = [
    ({"regex": "[a-c]{2}-[0-9]{3}"}, r"[a-c]{2}-[0-9]{3}"),
    ({"lark": 'start: "yes" | "no" /[!?]/'}, r"yes|no[!?]"),
    ({"gbnf": 'root ::= ("ab" | "a" "x"?) [0-9]{2}'}, r"(ab|ax?)[0-9]{2}"),
]


@pytest.mark.parametrize(("options", "expected"), FORMS, ids=["regex", "lark", "gbnf"])
async def test_forms_beside_json(
    provider: GGUFProvider, options: dict[str, Any], expected: str
) -> None:
    for response in await answers(provider, ask(**options), 5):
        assert re.fullmatch(expected, response.content() or "")
        assert response.finish_reason() is FinishReason.STOP


@pytest.mark.parametrize(
    ("options", "field", "words"),
    [
        ({"regex": "("}, "regex", "regular expression"),
        ({"lark": "start: x"}, "lark", "grammar"),
        ({"gbnf": "root ::= x"}, "gbnf", r"there is no rule 'x' \(line 1\)"),
        ({"regex": "a", "gbnf": 'root ::= "a"'}, "gbnf", "regex and gbnf"),
        ({"regex": "a", "response_format": ResponseFormat.json()}, "regex", "response_format and"),
        (
            {"response_format": ResponseFormat.json_schema({"properties": {"a": {"not": {}}}})},
            "response_format",
            "'not' at #/properties/a",
        ),
        ({"json_whitespace": "much"}, "json_whitespace", "short"),
    ],
)
async def test_forms_that_cannot_be_are_refused_by_name(
    provider: GGUFProvider, options: dict[str, Any], field: str, words: str
) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        await provider.chat(ask(**options))
    assert caught.value.field == field


@pytest.mark.parametrize("kind", ["short", "compact", "free"])
async def test_white_space_in_json_is_the_callers_choice(provider: GGUFProvider, kind: str) -> None:
    blanks = {**{str(byte): 2 for byte in b" \t\n"}, str(THINK): -100}
    request = ask(
        response_format=ResponseFormat.json_schema(POINT),
        json_whitespace=kind,
        logit_bias=blanks,
        max_tokens=1500,
    )
    texts = [r.content() or "" for r in await answers(provider, request, 8)]
    for text in texts:
        assert json.loads(text).keys() == {"x", "up"}
    if kind == "compact":
        assert not any(set(text) & set(" \t\n") for text in texts)
    elif kind == "short":
        assert not any("  " in text.replace("\n", "") and "\n" not in text for text in texts)
    else:
        assert any("\t" in text.split('"')[0] for text in texts)


@pytest.mark.parametrize(
    "options",
    [{"reasoning_budget": 5}, {"reasoning_budget": 0}, {"reasoning_effort": "none"}],
)
async def test_a_budget_closes_reasoning(provider: GGUFProvider, options: dict[str, Any]) -> None:
    request = ask(
        chat_template_kwargs={"thinking": True},
        logit_bias={str(END): -100, str(END_THINK): -100},
        max_tokens=30,
        **options,
    )
    (response,) = await answers(provider, request, 1)
    message = response.choices[0].message
    assert message.text_content()
    # One token is one byte here, and a broken character is one character.
    assert len(message.reasoning_content or "") <= options.get("reasoning_budget", 0)


async def test_without_a_budget_reasoning_goes_on(provider: GGUFProvider) -> None:
    request = ask(
        chat_template_kwargs={"thinking": True},
        logit_bias={str(END): -100, str(END_THINK): -100},
        max_tokens=30,
    )
    (response,) = await answers(provider, request, 1)
    assert not response.choices[0].message.text_content()
    assert response.choices[0].message.reasoning_content


@pytest.mark.parametrize(
    ("role", "part", "kind"),
    [
        ("user", {"image_url": {"url": "data:image/png;base64,xyz"}}, "image"),
        ("user", {"input_audio": {"data": "xyz", "format": "wav"}}, "audio"),
        ("tool", {"video": {"data": "xyz", "format": "mp4"}}, "video"),
    ],
)
async def test_what_a_model_has_no_sense_for_is_refused_by_name(
    provider: GGUFProvider, role: str, part: dict[str, Any], kind: str
) -> None:
    message = {"role": role, "content": [{"text": "See:"}, part], "tool_call_id": "abcdefgh1"}
    if role == "user":
        del message["tool_call_id"]
    request = ChatCompletionRequest.model_validate({"messages": [message]})
    with pytest.raises(ProviderNotSupported, match=kind):
        await provider.chat(request)


async def test_documents_need_a_place_in_the_template(provider: GGUFProvider) -> None:
    with pytest.raises(ConfigError, match="no place for documents"):
        await provider.chat(ask(documents=[{"title": "a", "text": "b"}]))

"""OpenAI's own client against the server: what it asks is what the provider answers."""

from __future__ import annotations

import asyncio
import base64
import json
import math
import struct
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel

from mofa_gguf import EmbeddingRequest, GGUFConfig, GGUFProvider
from tests.server.serving import Served, serving
from tests.support.tiny_gguf import TinyLlama, write_tiny_llama

MODEL = "tiny-tools"
HELLO: list[Any] = [{"role": "user", "content": "Hello"}]
EXACTLY_12: dict[str, Any] = {"max_tokens": 12, "extra_body": {"ignore_eos": True}}
WEATHER: list[Any] = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "Tells the weather.",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string", "maxLength": 5}},
                "required": ["city"],
            },
        },
    }
]


class Sum(BaseModel):
    result: int


def run_on(provider: Any, work: Any) -> Any:
    """The provider is open to every event loop, so a test may ask it behind the server's back."""
    return asyncio.run(work(provider))


def test_an_answer_is_the_providers_own(client: OpenAI) -> None:
    answer = client.chat.completions.create(model=MODEL, messages=HELLO, **EXACTLY_12)
    choice = answer.choices[0]
    assert answer.model == MODEL
    assert answer.object == "chat.completion"
    assert choice.message.role == "assistant"
    assert choice.message.content
    assert choice.finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 12
    again = client.chat.completions.create(model="", messages=HELLO, **EXACTLY_12)
    assert again.choices[0].message.content == choice.message.content
    assert again.usage is not None
    assert again.usage.prompt_tokens_details is not None
    assert again.usage.prompt_tokens_details.cached_tokens


def test_a_stream_adds_up_to_the_answer_and_has_usage_when_asked(client: OpenAI) -> None:
    whole = client.chat.completions.create(model=MODEL, messages=HELLO, **EXACTLY_12)
    for include in (True, False):
        options: Any = {"stream_options": {"include_usage": True}} if include else {}
        stream = client.chat.completions.create(
            model=MODEL, messages=HELLO, stream=True, **EXACTLY_12, **options
        )
        chunks = list(stream)
        text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
        assert text == whole.choices[0].message.content
        reasons = [c.choices[0].finish_reason for c in chunks if c.choices]
        assert reasons[-1] == "length"
        assert set(reasons[:-1]) == {None}
        assert [bool(c.usage) for c in chunks] == [False] * (len(chunks) - 1) + [include]
        assert (not chunks[-1].choices) is include


async def test_the_async_client_gets_many_answers_at_once(served: Served) -> None:
    async with AsyncOpenAI(base_url=served.url, api_key="none", max_retries=0) as client:

        async def ask(text: str) -> str | None:
            messages: Any = [{"role": "user", "content": text}]
            got = await client.chat.completions.create(model=MODEL, messages=messages, **EXACTLY_12)
            return got.choices[0].message.content

        alone = [await ask(text) for text in "abcd"]
        assert await asyncio.gather(*map(ask, "abcd")) == alone
        stream = await client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "a"}], stream=True, **EXACTLY_12
        )
        assert "".join([c.choices[0].delta.content or "" async for c in stream]) == alone[0]


@pytest.mark.parametrize(
    "choice", ["required", {"type": "function", "function": {"name": "weather"}}]
)
def test_a_forced_tool_call_is_valid_whole_and_streamed(client: OpenAI, choice: Any) -> None:
    options: Any = {"tools": WEATHER, "tool_choice": choice, "max_tokens": 300, "seed": 3}
    answer = client.chat.completions.create(model=MODEL, messages=HELLO, **options)
    assert answer.choices[0].finish_reason == "tool_calls"
    assert answer.choices[0].message.tool_calls is not None
    call = answer.choices[0].message.tool_calls[0]
    assert call.type == "function"
    assert call.function.name == "weather"
    assert json.loads(call.function.arguments).keys() == {"city"}
    name, arguments = "", ""
    for chunk in client.chat.completions.create(
        model=MODEL, messages=HELLO, stream=True, **options
    ):
        for delta in chunk.choices[0].delta.tool_calls or ():
            assert delta.function is not None
            if delta.index == 0:
                name += delta.function.name or ""
                arguments += delta.function.arguments or ""
    assert (name, arguments) == ("weather", call.function.arguments)


def test_a_tools_result_goes_back_in_openais_shape(client: OpenAI) -> None:
    messages: Any = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Paris?"}]},
        {
            "role": "assistant",
            "content": None,
            "refusal": None,
            "tool_calls": [
                {
                    "id": "call_1",
                    "type": "function",
                    "function": {"name": "weather", "arguments": '{"city": "Paris"}'},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
    ]
    answer = client.chat.completions.create(
        model=MODEL, messages=messages, tools=WEATHER, tool_choice="none", max_tokens=5
    )
    assert answer.choices[0].message.tool_calls is None


def test_an_answer_obeys_its_schema(client: OpenAI) -> None:
    parsed = client.chat.completions.parse(
        model=MODEL, messages=HELLO, response_format=Sum, max_tokens=200
    )
    assert isinstance(parsed.choices[0].message.parsed, Sum)
    free = client.chat.completions.create(
        model=MODEL,
        messages=HELLO,
        response_format={"type": "json_object"},
        max_tokens=3,
        logprobs=True,
        top_logprobs=5,
    )
    assert (free.choices[0].message.content or "").startswith("{")
    assert free.choices[0].logprobs is not None
    for token in free.choices[0].logprobs.content or ():
        assert len(token.top_logprobs) == 5
        assert all(math.isfinite(top.logprob) for top in token.top_logprobs)


def test_sampling_options_and_our_extras_reach_the_model(client: OpenAI) -> None:
    def ask(**options: Any) -> Any:
        body = {"ignore_eos": True, **options.pop("extra_body", {})}
        return client.chat.completions.create(
            model=MODEL, messages=HELLO, max_tokens=8, extra_body=body, **options
        )

    warm: Any = {"temperature": 1.5, "extra_body": {"top_k": 0}}
    three = ask(n=3, seed=7, **warm)
    texts = [choice.message.content for choice in three.choices]
    assert [choice.index for choice in three.choices] == [0, 1, 2]
    assert len(set(texts)) > 1
    assert ask(seed=7, **warm).choices[0].message.content == texts[0]
    greedy = ask(logprobs=True, top_logprobs=2)
    tokens = greedy.choices[0].logprobs.content
    assert len(tokens) == 8
    assert tokens[0].logprob == max(top.logprob for top in tokens[0].top_logprobs) <= 0
    whole = greedy.choices[0].message.content
    cut = ask(stop=whole[3])
    assert cut.choices[0].message.content == whole[: whole.index(whole[3])]
    assert cut.choices[0].finish_reason == "stop"
    first = tokens[0].bytes[0]  # a byte a token: its value is the token's id
    banned = ask(logit_bias={str(first): -100}, logprobs=True)
    assert banned.choices[0].logprobs.content[0].bytes[0] != first
    digits = ask(extra_body={"regex": "[0-9]{4}", "ignore_eos": False})
    assert digits.choices[0].message.content.isdigit()


def test_vectors_are_the_providers_as_numbers_and_as_base64(served: Served, client: OpenAI) -> None:
    texts = ["Hello", "World!"]
    direct = run_on(served.provider, lambda p: p.embedding(EmbeddingRequest(model="", input=texts)))
    for encoding in ("float", "base64"):
        got = client.embeddings.create(model=MODEL, input=texts, encoding_format=encoding)  # type: ignore[call-overload]
        for ours, theirs in zip(direct.data, got.data, strict=True):
            values = theirs.embedding
            if encoding == "base64":
                packed = base64.b64decode(values)
                values = struct.unpack(f"<{len(packed) // 4}f", packed)
            assert list(values) == pytest.approx(ours.embedding, abs=1e-6)
        assert got.usage.total_tokens == direct.usage.total_tokens
    assert client.embeddings.create(model="text-embedding-ada-002", input="x").model == MODEL


def test_bare_text_is_continued_without_a_template(client: OpenAI) -> None:
    def complete(prompt: Any, **options: Any) -> Any:
        body = {"ignore_eos": True}
        return client.completions.create(
            **{"model": MODEL, "prompt": prompt, "max_tokens": 6, "extra_body": body, **options}
        )

    one = complete("abc")
    assert one.object == "text_completion"
    assert one.usage.prompt_tokens == 3  # a byte a token, and nothing of a template around them
    assert one.usage.completion_tokens == 6
    text = one.choices[0].text
    assert complete("abc", echo=True).choices[0].text == "abc" + text
    assert complete("abc", max_tokens=None).usage.completion_tokens == 16  # OpenAI's default
    several = complete(["abc", "xyz"], n=2)
    assert [choice.index for choice in several.choices] == [0, 1, 2, 3]
    assert several.choices[0].text == several.choices[1].text == text
    assert several.usage.prompt_tokens == 6
    stream = list(complete(["abc", "xyz"], stream=True, stream_options={"include_usage": True}))
    assert (
        "".join(c.choices[0].text for c in stream if c.choices and c.choices[0].index == 0) == text
    )
    assert stream[-1].usage.total_tokens == 18
    likely = complete("abc", logprobs=2).choices[0]
    assert len(likely.logprobs.token_logprobs) == 6
    assert len(likely.logprobs.top_logprobs[0]) == 2
    assert likely.logprobs.text_offset[0] == 0


def test_token_ids_are_a_prompt_and_ids_that_are_none_are_refused(
    served: Served, client: OpenAI
) -> None:
    tokens = run_on(served.provider, lambda p: p.tokenize("abc"))
    text = client.completions.create(model=MODEL, prompt="abc", max_tokens=6)
    ids = client.completions.create(model=MODEL, prompt=tokens, max_tokens=6)
    assert ids.choices[0].text == text.choices[0].text
    with pytest.raises(openai.BadRequestError, match="99999 is no token") as caught:
        client.completions.create(model=MODEL, prompt=[1, 99999])
    assert caught.value.param == "prompt"


def test_models_are_listed_and_told_of(client: OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [MODEL]
    assert client.models.retrieve(MODEL).object == "model"
    with pytest.raises(openai.NotFoundError, match=f"there is {MODEL}") as caught:
        client.models.retrieve("org/none")
    assert caught.value.param == "model"


@pytest.mark.parametrize(
    ("options", "kind", "code", "param"),
    [
        ({"model": "gpt-4o"}, openai.NotFoundError, "model_not_found", None),
        ({"temperature": 9}, openai.BadRequestError, None, "temperature"),
        ({"extra_body": {"tmperature": 1}}, openai.BadRequestError, None, "tmperature"),
        ({"messages": []}, openai.BadRequestError, None, "messages"),
        ({"messages": [{"role": "boss"}]}, openai.BadRequestError, None, "messages.0.role"),
        (
            {"messages": [{"role": "user", "content": "x" * 3000}]},
            openai.BadRequestError,
            "context_length_exceeded",
            None,
        ),
        (
            {"messages": [{"role": "user", "content": [
                {"type": "image_url", "image_url": {"url": "data:,x"}}]}]},
            openai.InternalServerError,
            "not_supported",
            None,
        ),
    ],
)  # fmt: skip
@pytest.mark.parametrize("stream", [False, True])
def test_errors_have_openais_shape_and_status(
    client: OpenAI,
    options: Any,
    kind: type[openai.APIStatusError],
    code: str,
    param: str,
    stream: bool,
) -> None:
    asked: Any = {"model": MODEL, "messages": HELLO, "stream": stream, **options}
    with pytest.raises(kind) as caught:
        list(client.chat.completions.create(**asked))
    assert caught.value.code == code
    assert caught.value.param == param
    if code == "not_supported":
        assert caught.value.status_code == 501
    if code == "context_length_exceeded":
        body: Any = caught.value.body
        assert body["n_prompt_tokens"] > 3000
        assert body["n_ctx"] == 2048


def test_a_deadline_is_504_or_comes_within_the_stream(client: OpenAI) -> None:
    hurry: Any = {"max_tokens": 2000, "extra_body": {"timeout_s": 0.05, "ignore_eos": True}}
    with pytest.raises(openai.InternalServerError) as caught:
        client.chat.completions.create(model=MODEL, messages=HELLO, **hurry)
    assert (caught.value.status_code, caught.value.code) == (504, "timeout")
    stream = client.chat.completions.create(
        model=MODEL,
        messages=HELLO,
        stream=True,
        **hurry,
    )
    with pytest.raises(openai.APIError, match=r"0\.05"):
        list(stream)


def test_several_models_are_listed_and_chosen(tmp_path: Path) -> None:
    paths = {
        name: str(write_tiny_llama(tmp_path / f"{name}.gguf", TinyLlama(seed=seed)))
        for seed, name in enumerate(("one", "two"))
    }
    config = GGUFConfig(models=paths, n_threads=1, n_ctx=128)
    with serving(GGUFProvider(config)) as served, served.client() as client:
        assert [model.id for model in client.models.list()] == ["one", "two"]
        health = served.get("health").json()
        assert health == {"status": "ok", "models": {"one": "ready", "two": "absent"}}
        answers = {
            name: client.chat.completions.create(
                model=name, messages=HELLO, temperature=0, **EXACTLY_12
            )
            for name in ("one", "two", "")
        }
        assert {name: answer.model for name, answer in answers.items()} == {
            "one": "one",
            "two": "two",
            "": "one",
        }
        said = {name: answer.choices[0].message.content for name, answer in answers.items()}
        assert said["one"] == said[""] != said["two"]

"""Every parameter of OpenAI's client: obeyed, let through where nothing changes, or refused."""

from __future__ import annotations

import json
from typing import Any, get_type_hints

import openai
import pytest
from openai import OpenAI
from openai.types import completion_create_params, embedding_create_params
from openai.types.chat import completion_create_params as chat_create_params

from mofa_gguf.host.testing import ScriptedProvider
from tests.server.serving import Served, serving

MODEL = "tiny-tools"
HELLO: list[Any] = [{"role": "user", "content": "Hello"}]
MADE_WITH = (2, 54)  # the newest client whose parameters stand below


def tool(name: str) -> dict[str, Any]:
    nothing = {"type": "object", "properties": {}, "additionalProperties": False}
    return {"type": "function", "function": {"name": name, "parameters": nothing}}


ANSWERED: list[tuple[str, Any]] = [
    ("frequency_penalty", 0.5),
    ("function_call", "auto"),
    ("functions", []),
    ("logit_bias", {"65": -5}),
    ("logprobs", True),
    ("max_completion_tokens", 2),
    ("max_tokens", 2),
    ("metadata", {"project": "mofa"}),
    ("modalities", ["text"]),
    ("n", 2),
    ("parallel_tool_calls", False),
    ("prediction", {"type": "content", "content": "Hello"}),
    ("presence_penalty", 0.5),
    ("prompt_cache_key", "agents"),
    ("prompt_cache_options", {"mode": "implicit", "ttl": "30m"}),
    ("prompt_cache_retention", "24h"),
    ("reasoning_effort", "minimal"),
    ("reasoning_effort", "max"),
    ("response_format", {"type": "text"}),
    ("safety_identifier", "someone"),
    ("seed", 7),
    ("service_tier", "auto"),
    ("service_tier", "priority"),
    ("stop", ["###", "END"]),
    ("store", False),
    ("stream_options", {"include_usage": True}),
    ("temperature", 0.5),
    ("tool_choice", "auto"),
    ("tools", [tool("f")]),
    ("top_logprobs", 2),
    ("top_p", 0.5),
    ("user", "someone"),
    ("verbosity", "medium"),
]
REFUSED: list[tuple[str, Any, str]] = [
    ("audio", {"voice": "alloy", "format": "mp3"}, "answers in text"),
    ("function_call", {"name": "f"}, "send tools"),
    ("functions", [{"name": "f"}], "send tools"),
    ("modalities", ["text", "audio"], r"send \['text'\]"),
    ("moderation", {"model": "omni-moderation-latest"}, "nothing here moderates"),
    ("service_tier", "gold", "'priority'"),
    ("store", True, "keep yours"),
    ("verbosity", "low", "say in a message"),
    ("web_search_options", {}, "nothing here searches the web"),
]


def parameters_of(params: Any) -> set[str]:
    return set(get_type_hints(params)) - {"messages", "model", "prompt", "input", "stream"}


def test_every_parameter_of_the_client_is_known_here() -> None:
    version = tuple(int(part) for part in openai.__version__.split(".")[:2])
    if version > MADE_WITH:
        pytest.skip(f"these tables are of openai {MADE_WITH[0]}.{MADE_WITH[1]}, not {version}")
    decided = {name for name, *_ in [*ANSWERED, *REFUSED]}
    assert parameters_of(chat_create_params.CompletionCreateParamsBase) == decided
    others = {"best_of", "echo", "suffix"}
    completion = parameters_of(completion_create_params.CompletionCreateParamsBase)
    assert completion <= decided | others
    assert parameters_of(embedding_create_params.EmbeddingCreateParams) == {
        "dimensions",
        "encoding_format",
        "user",
    }


@pytest.mark.parametrize(("name", "value"), ANSWERED, ids=lambda v: v if type(v) is str else "")
def test_what_is_obeyed_or_changes_nothing_is_answered(
    client: OpenAI, name: str, value: Any
) -> None:
    asked = {"model": MODEL, "messages": HELLO, "max_tokens": 2, name: value}
    assert client.chat.completions.create(**asked).choices[0].message.role == "assistant"


@pytest.mark.parametrize(
    ("name", "value", "why"), REFUSED, ids=lambda v: v if type(v) is str else ""
)
def test_what_would_change_the_answer_is_refused_by_name(
    client: OpenAI, name: str, value: Any, why: str
) -> None:
    asked = {"model": MODEL, "messages": HELLO, "max_tokens": 2, name: value}
    with pytest.raises(openai.BadRequestError, match=why) as caught:
        client.chat.completions.create(**asked)
    assert (caught.value.type, caught.value.param) == ("invalid_request_error", name)
    assert "\n" not in caught.value.message


def test_notes_and_hints_leave_the_answer_as_it_is(client: OpenAI) -> None:
    def ask(**options: Any) -> Any:
        asked = {"model": MODEL, "messages": HELLO, "max_tokens": 8, **options}
        return client.chat.completions.create(**asked).choices[0].message.content

    notes = ("metadata", "modalities", "prediction", "service_tier", "store", "user", "verbosity")
    assert ask(**{name: value for name, value in ANSWERED if name in notes}) == ask()


@pytest.mark.parametrize("name", ["prompt_cache_key", "safety_identifier", "verbosity", "store"])
def test_another_provider_hears_what_the_client_said(name: str) -> None:
    value = dict(ANSWERED)[name]
    with serving(ScriptedProvider()) as served, served.client() as client:
        asked: Any = {"model": "", "messages": HELLO, name: value}
        client.chat.completions.create(**asked)
        assert served.provider.requests[0].extra == {name: value}  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"include_obfuscation": True}, "stream_options.include_obfuscation"),
        ({"include_usage": "no"}, "stream_options.include_usage"),
        ({"continuous_usage_stats": True}, "stream_options.continuous_usage_stats"),
    ],
)
@pytest.mark.parametrize("path", ["chat/completions", "completions"])
def test_stream_options_are_obeyed_or_refused(
    served: Served, path: str, options: dict[str, Any], param: str
) -> None:
    asked = {"messages": HELLO} if path.startswith("chat") else {"prompt": "abc"}
    body = {**asked, "max_tokens": 2, "stream": True}
    answer = served.post(path, json={**body, "stream_options": options})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    plain = {"include_obfuscation": False, "include_usage": None}
    text = served.post(path, json={**body, "stream_options": plain}).text
    assert "usage" not in text


@pytest.mark.parametrize("path", ["chat/completions", "completions"])
def test_a_stream_that_has_usage_says_null_until_then(served: Served, path: str) -> None:
    asked = {"messages": HELLO} if path.startswith("chat") else {"prompt": "abc"}
    body = {**asked, "max_tokens": 3, "stream": True, "stream_options": {"include_usage": True}}
    lines = served.post(path, json=body).text.split("\n\n")
    events = [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]
    assert [event["usage"] for event in events[:-1]] == [None] * (len(events) - 1)
    assert events[-1]["choices"] == []
    assert events[-1]["usage"]["completion_tokens"] == 3
    assert "cached_tokens" in events[-1]["usage"]["prompt_tokens_details"]


def test_keys_that_openais_readers_need_are_there(served: Served) -> None:
    body = {"messages": HELLO, "max_tokens": 2, "logprobs": True}
    choice = served.post("chat/completions", json=body).json()["choices"][0]
    assert choice["message"]["refusal"] is None
    assert choice["logprobs"]["refusal"] is None
    bare = served.post("chat/completions", json={"messages": HELLO, "max_tokens": 2}).json()
    assert bare["choices"][0]["logprobs"] is None


def test_allowed_tools_are_the_only_ones(client: OpenAI) -> None:
    def call(mode: str, *names: str) -> Any:
        allowed = {"mode": mode, "tools": [tool(name) for name in names]}
        choice: Any = {"type": "allowed_tools", "allowed_tools": allowed}
        tools: Any = [tool("one"), tool("two")]
        got = client.chat.completions.create(
            model=MODEL, messages=HELLO, tools=tools, tool_choice=choice, max_tokens=200
        )
        return [call.function.name for call in got.choices[0].message.tool_calls or ()]

    for name in ("one", "two"):
        assert set(call("required", name)) == {name}
    assert set(call("auto", "one")) <= {"one"}
    for mode, names in (("required", ("three",)), ("required", ()), ("none", ("one",))):
        with pytest.raises(openai.BadRequestError, match="allowed_tools"):
            call(mode, *names)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"tools": [{"type": "custom", "custom": {"name": "c"}}]}, "tools.0"),
        ({"tools": [tool("f"), {"type": "web_search"}]}, "tools.1"),
        (
            {"tools": [tool("f")], "tool_choice": {"type": "custom", "custom": {"name": "c"}}},
            "tool_choice",
        ),
        ({"messages": [{"role": "function", "name": "f", "content": "x"}]}, "messages.0.role"),
        ({"messages": [*HELLO, {"role": "assistant", "audio": {"id": "a"}}]}, "messages.1.audio"),
        (
            {"messages": [{"role": "assistant", "function_call": {"name": "f", "arguments": ""}}]},
            "messages.0.function_call",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "file", "file": {}}]}]},
            "messages.0.content.0",
        ),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"id": "1", "type": "custom"}]}]},
            "messages.0.tool_calls.0",
        ),
    ],
)
def test_shapes_that_no_local_model_knows_are_refused_where_they_stand(
    served: Served, body: dict[str, Any], param: str
) -> None:
    answer = served.post("chat/completions", json={"messages": HELLO, **body})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


def test_a_refusal_that_is_sent_back_is_what_the_assistant_said() -> None:
    said: list[Any] = [
        {"role": "assistant", "content": None, "refusal": "I cannot."},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "I cannot."}]},
    ]
    with serving(ScriptedProvider()) as served, served.client() as client:
        for message in said:
            client.chat.completions.create(model="", messages=[*HELLO, message, *HELLO])
        heard = [request.messages[1] for request in served.provider.requests]  # type: ignore[attr-defined]
    assert [message.text_content() for message in heard] == ["I cannot."] * 2


def test_the_responses_api_is_told_where_to_go(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="chat/completions"):
        client.responses.create(model=MODEL, input="Hello")


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("completions", {"prompt": "a", "reasoning_effort": "low"}, "reasoning_effort"),
        ("completions", {"prompt": "a", "verbosity": "low"}, "verbosity"),
        ("completions", {"prompt": "a", "documents": ["d"]}, "documents"),
        ("completions", {"prompt": "a", "store": True}, "store"),
        ("embeddings", {"input": "a", "truncate": True}, "truncate"),
    ],
)
def test_what_another_endpoint_would_ignore_is_refused_there(
    served: Served, path: str, body: dict[str, Any], param: str
) -> None:
    answer = served.post(path, json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)

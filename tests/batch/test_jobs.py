"""What an input line asks for."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mofa_gguf.batch.jobs import LineError, Request, read_job
from mofa_gguf.batch.options import BatchOptions
from mofa_gguf.contract import ChatCompletionRequest, EmbeddingRequest

CHAT, EMBEDDINGS = "/v1/chat/completions", "/v1/embeddings"
HELLO = [{"role": "user", "content": "Hello"}]


def request_of(line: Any, **options: Any) -> Request:
    job = read_job(7, json.dumps(line).encode(), BatchOptions(**options))
    assert not isinstance(job.request, LineError), job.request.message
    return job.request


def test_a_batch_line_is_its_body() -> None:
    line = {"custom_id": "a", "method": "POST", "url": CHAT}
    body = {"model": "m", "messages": HELLO, "max_tokens": 5, "top_k": 3}
    job = read_job(1, json.dumps({**line, "body": body}).encode(), BatchOptions())
    assert job.custom_id == "a"
    assert job.request == ChatCompletionRequest.from_dict(body)


def test_an_embeddings_line_is_one_without_naming_a_model() -> None:
    line = {"custom_id": "a", "method": "POST", "url": EMBEDDINGS, "body": {"input": ["x", "y"]}}
    assert request_of(line) == EmbeddingRequest(model="", input=["x", "y"])


@pytest.mark.parametrize(
    ("line", "request_"),
    [
        ({"messages": HELLO, "seed": 1}, {"messages": HELLO, "seed": 1}),
        ({"prompt": "Hello", "temperature": 0.5}, {"messages": HELLO, "temperature": 0.5}),
        ({"messages": HELLO, "stream": True}, {"messages": HELLO}),
    ],
)
def test_a_plain_line_is_a_request(line: Any, request_: Any) -> None:
    assert request_of(line) == ChatCompletionRequest.from_dict(request_)
    assert read_job(7, json.dumps(line).encode(), BatchOptions()).custom_id == "line-7"


@pytest.mark.parametrize("form", ["batch", "plain"])
def test_openais_newer_name_of_the_systems_role_is_read(form: str) -> None:
    body = {"messages": [{"role": "developer", "content": "Be brief."}, *HELLO]}
    line = {"custom_id": "a", "url": CHAT, "body": body} if form == "batch" else body
    request = request_of(line)
    assert isinstance(request, ChatCompletionRequest)
    assert [message.role for message in request.messages] == ["system", "user"]


def test_a_plain_line_may_have_a_name() -> None:
    line = b'{"input": "x", "custom_id": "mine"}'
    job = read_job(7, line, BatchOptions())
    assert (job.custom_id, job.request) == ("mine", EmbeddingRequest(model="", input="x"))


def test_defaults_fill_only_what_a_line_leaves_open() -> None:
    options = {"max_tokens": 9, "temperature": 0.0, "seed": 4}
    silent = request_of({"prompt": "x"}, **options)
    assert isinstance(silent, ChatCompletionRequest)
    assert (silent.max_tokens, silent.temperature, silent.extra) == (9, 0.0, {"seed": 4})
    spoken = request_of({"prompt": "x", "max_tokens": 1, "temperature": 1.0, "seed": 2}, **options)
    assert isinstance(spoken, ChatCompletionRequest)
    assert (spoken.max_tokens, spoken.temperature, spoken.extra) == (1, 1.0, {"seed": 2})
    newer = request_of({"prompt": "x", "max_completion_tokens": 1}, **options)
    assert isinstance(newer, ChatCompletionRequest)
    assert newer.max_tokens is None


def test_the_model_of_the_lines_can_be_ignored() -> None:
    line = {"messages": HELLO, "model": "gpt-9"}
    assert request_of(line).model == "gpt-9"
    assert request_of(line, ignore_model=True).model == ""


@pytest.mark.parametrize(
    ("line", "code", "says"),
    [
        (b"{", "invalid_json", "not valid JSON"),
        (b"\xff{}", "invalid_json", "not valid JSON"),
        (b"[" * 100_000, "invalid_json", "not valid JSON"),
        (b"[1]", "invalid_json", "the line is a list"),
        (b"null", "invalid_json", "the line is null"),
        (b"{}", "invalid_request", "give one of messages, prompt, input"),
        (b'{"prompt": "a", "input": "b"}', "invalid_request", "prompt and input"),
        (b'{"prompt": 7}', "invalid_request", "prompt is an int"),
        (b'{"messages": "hi"}', "invalid_request", "messages"),
        (b'{"prompt": "x", "custom_id": 5}', "invalid_request", "custom_id"),
        (b'{"prompt": "x", "custom_id": ""}', "invalid_request", "custom_id"),
        (b'{"url": "/v1/chat/completions", "body": {}}', "invalid_request", "custom_id"),
        (b'{"custom_id": "a", "url": "/v1/x", "body": {}}', "invalid_request", "/v1/embeddings"),
        (b'{"custom_id": "a", "body": {}}', "invalid_request", "no url None"),
        (
            b'{"custom_id": "a", "method": "GET", "url": "/v1/embeddings", "body": {}}',
            "invalid_request",
            "POST, not 'GET'",
        ),
        (b'{"custom_id": "a", "url": "/v1/embeddings"}', "invalid_request", "body is missing"),
        (
            b'{"custom_id": "a", "url": "/v1/embeddings", "body": {"input": 3}}',
            "invalid_request",
            "input",
        ),
    ],
)
def test_a_malformed_line_says_what_is_wrong(line: bytes, code: str, says: str) -> None:
    problem = read_job(1, line, BatchOptions()).request
    assert isinstance(problem, LineError)
    assert problem.code == code
    assert says in problem.message


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from(
    ["custom_id", "method", "url", "body", "messages", "prompt", "input", "model"]
)


@given(st.dictionaries(KEYS, JSON | st.sampled_from([CHAT, EMBEDDINGS, "POST"])) | JSON)
def test_no_line_does_more_than_fail(line: Any) -> None:
    job = read_job(1, json.dumps(line).encode(), BatchOptions())
    assert job.number == 1

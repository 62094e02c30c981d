"""The edges of the API over raw HTTP: bad bodies, keys, origins, clients that leave."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from mofa_gguf import (
    ApiError,
    AuthError,
    ChatCompletionChunk,
    ChatCompletionRequest,
    ChatCompletionResponse,
    ChatMessage,
    ContentFiltered,
    FallbackChain,
    LLMError,
    LLMProvider,
    NetworkError,
    Other,
    QuotaExceeded,
    RateLimited,
    ResponseFormat,
    SerializationError,
    Tool,
    ToolChoice,
)
from mofa_gguf.host import LLMRetryPolicy, RetryingProvider
from mofa_gguf.host.testing import ScriptedProvider
from mofa_gguf.server.errors import problem_of
from tests.server.serving import Served, eventually, serving

HELLO = [{"role": "user", "content": "Hello"}]
ENDLESS = {"messages": HELLO, "max_tokens": 1900, "ignore_eos": True}


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b"[]", "a JSON list"),
        (b"null", "a JSON NoneType"),
        (b'{"messages": "hi"}', "messages"),
        (b'{"messages": [3]}', "messages.0"),
        (b'{"messages": [{"role": "user", "content": 3}]}', "messages.0.content"),
        (b'{"messages": [], "stream": "yes"}', "stream"),
        (b'{"messages": [], "stream_options": 3}', "stream_options"),
        (b'{"messages": [], "temperature": NaN}', "temperature"),
    ],
)
def test_a_bad_body_is_400_in_one_sentence(served: Served, body: bytes, says: str) -> None:
    answer = served.post("chat/completions", content=body)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert says in error["message"]
    assert "\n" not in error["message"]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [1, "a"]}, "prompt"),
        ({"prompt": ["a"] * 65}, "prompt"),
        ({"prompt": "a", "suffix": "b"}, "suffix"),
        ({"prompt": "a", "best_of": 3}, "best_of"),
        ({"prompt": "a", "logprobs": True}, "logprobs"),
        ({"prompt": "a", "logprobs": 1, "echo": True}, "logprobs"),
        ({"prompt": [1], "echo": True}, "echo"),
        ({"prompt": "a", "messages": HELLO}, "messages"),
        ({"prompt": "a", "tools": [{"function": {"name": "f"}}]}, "tools"),
        ({"prompt": "a", "regex": "("}, "regex"),
    ],
)
def test_what_completions_cannot_do_is_refused_by_name(
    served: Served, body: dict[str, Any], param: str
) -> None:
    answer = served.post("completions", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": ""}, "input"),
        ({"input": []}, "input"),
        ({"input": [1, 2]}, "input"),
        ({"input": "a", "encoding_format": "int8"}, "encoding_format"),
        ({"input": "a", "dimensions": 3}, "dimensions"),
        ({}, "input"),
    ],
)
def test_what_cannot_be_embedded_is_refused_by_name(
    served: Served, body: dict[str, Any], param: str
) -> None:
    answer = served.post("embeddings", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


def test_unknown_paths_and_methods_are_told_in_openais_shape(served: Served) -> None:
    for path, status in (("v2/chat", 404), ("v1/chat/completions", 405)):
        answer = served.get(path)
        assert answer.status_code == status
        assert "the API is under /v1" in answer.json()["error"]["message"]


def test_what_mofas_rust_side_writes_is_understood(served: Served) -> None:
    request = ChatCompletionRequest(
        model="",
        messages=[ChatMessage.user_with_parts([{"text": "Hello"}])],  # type: ignore[list-item]
        tools=[Tool.function("weather", "Tells the weather.")],
        tool_choice=ToolChoice.AUTO,
        max_tokens=5,
        ignore_eos=True,  # type: ignore[call-arg]
    )
    body = request.to_dict()
    assert body["tool_choice"] is None
    assert body["messages"][0]["content"] == [{"text": "Hello"}]
    whole = served.post("chat/completions", json=body)
    answer = ChatCompletionResponse.from_json(whole.text)
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 5
    schema = ResponseFormat.json_schema({"type": "object", "properties": {}})
    form = {"messages": HELLO, "response_format": schema.to_dict(), "max_tokens": 9}
    got = served.post("chat/completions", json=form)
    assert ChatCompletionResponse.from_json(got.text).content() is not None
    lines = served.post("chat/completions", json={**body, "stream": True}).text.split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    chunks = [ChatCompletionChunk.from_json(line.removeprefix("data: ")) for line in lines[:-2]]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == answer.content()


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_frees_its_sequence(served: Served, stream: bool) -> None:
    stats = served.provider.stats  # type: ignore[attr-defined]
    before = stats()
    connection = served.raw(json.dumps({**ENDLESS, "stream": stream}).encode())
    if stream:
        assert b"200 OK" in connection.recv(4096)
    eventually(lambda: stats().n_running == 1)
    connection.close()
    eventually(lambda: stats().n_running == 0)
    after = stats()
    assert after.n_requests == before.n_requests + 1
    assert after.n_generated_tokens - before.n_generated_tokens < 1900
    assert after.n_cells_used == after.n_cells_cached


@pytest.mark.parametrize("stream", [True, False])
def test_any_providers_answer_is_cancelled_when_its_client_leaves(stream: bool) -> None:
    provider = ScriptedProvider(["word " * 500], delay_s=0.02)
    with serving(provider) as served:
        connection = served.raw(json.dumps({"messages": HELLO, "stream": stream}).encode())
        eventually(lambda: provider.n_open_streams == 1)
        if stream:  # its status has been told
            assert b"200 OK" in connection.recv(4096)
        connection.close()
        eventually(lambda: provider.n_open_streams == 0, timeout_s=5)
        assert provider.n_cancelled == 1
        counted = 'http_requests_total{route="/v1/chat/completions",status="'
        eventually(lambda: counted + ("200" if stream else "499") in served.get("metrics").text)


def test_the_key_is_asked_for_everywhere_but_for_health() -> None:
    with serving(ScriptedProvider(), api_key="schlüssel") as served:
        right = {"authorization": "Bearer schlüssel".encode()}
        for wrong in ({}, {"authorization": "Bearer x"}, {"authorization": "Basic schl"}):
            for path in ("v1/models", "metrics", "v1/nothing"):
                answer = served.get(path, headers=wrong)
                assert answer.status_code == 401
                assert answer.headers["www-authenticate"] == "Bearer"
                assert answer.json()["error"]["code"] == "invalid_api_key"
                assert answer.json()["error"]["type"] == "invalid_request_error"
        assert served.get("health").status_code == 200
        posted = served.post("chat/completions", json={"messages": HELLO}, headers=right)
        assert posted.json()["choices"][0]["message"]["content"] == "Hello"


def test_web_pages_ask_only_where_they_may() -> None:
    page = {"origin": "https://page.example"}
    body = {"json": {"messages": HELLO}, "headers": page}
    with serving(ScriptedProvider()) as served:
        refused = served.post("chat/completions", **body)
        assert refused.status_code == 403
        assert "--cors-origin" in refused.json()["error"]["message"]
        assert served.provider.requests == []  # type: ignore[attr-defined]
    with serving(ScriptedProvider(), cors_origins=("https://page.example",), api_key="k") as served:
        asked = {**page, "access-control-request-method": "POST"}
        preflight = httpx.options(f"{served.url}/chat/completions", headers=asked)
        assert preflight.headers["access-control-allow-origin"] == "https://page.example"
        body["headers"] = {**page, "authorization": "Bearer k"}
        answer = served.post("chat/completions", **body)
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == "https://page.example"
        other = served.get("v1/models", headers={"origin": "https://other.example"})
        assert other.status_code == 403


def test_a_body_that_is_too_large_is_refused_with_and_without_its_length() -> None:
    with serving(ScriptedProvider(), max_body_bytes=1000) as served:
        large = json.dumps({"messages": [{"role": "user", "content": "x" * 2000}]}).encode()
        told = served.post("chat/completions", content=large)
        untold = served.post("chat/completions", content=iter([large[:900], large[900:]]))
        assert [told.status_code, untold.status_code] == [413, 413]
        assert "1000 bytes" in told.json()["error"]["message"]
        assert served.post("chat/completions", json={"messages": HELLO}).status_code == 200


ERRORS: list[tuple[LLMError, int, str | None]] = [
    (AuthError("no"), 401, "invalid_api_key"),
    (ContentFiltered("no"), 400, "content_filter"),
    (RateLimited("no", retry_after_s=3), 429, "rate_limit_exceeded"),
    (QuotaExceeded("no"), 429, "insufficient_quota"),
    (NetworkError("no"), 502, "network_error"),
    (SerializationError("no"), 502, "serialization_error"),
    (ApiError("no", code="503"), 503, "503"),
    (ApiError("no", code="E9"), 500, "E9"),
    (Other("no"), 500, None),
]


@pytest.mark.parametrize(("error", "status", "code"), ERRORS, ids=lambda v: type(v).__name__)
def test_each_error_of_the_contract_has_its_status(
    error: LLMError, status: int, code: str | None
) -> None:
    with serving(ScriptedProvider([error, error])) as served:
        for stream in (False, True):
            answer = served.post("chat/completions", json={"messages": HELLO, "stream": stream})
            assert answer.status_code == status
            assert answer.json()["error"]["message"] == "no"
            assert answer.json()["error"]["code"] == code
    if isinstance(error, RateLimited):
        assert answer.headers["retry-after"] == "3"


def test_every_class_of_the_contract_has_a_status_of_its_own_or_is_500() -> None:
    statuses = {kind.__name__: problem_of(kind("no")).status for kind in LLMError.__subclasses__()}
    assert {name for name, status in statuses.items() if status == 500} == {"ApiError", "Other"}


class Broken(ScriptedProvider):
    """A provider with a bug."""

    async def chat(self, request: ChatCompletionRequest) -> ChatCompletionResponse:
        raise ZeroDivisionError("a secret of the provider")

    async def health_check(self) -> bool:
        return False


def test_a_bug_is_logged_and_not_told(caplog: pytest.LogCaptureFixture) -> None:
    with serving(Broken()) as served:
        answer = served.post("chat/completions", json={"messages": HELLO})
        assert served.get("health").json()["status"] == "ok"
        assert served.get("health?check=true").status_code == 503
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert "a secret of the provider" in caplog.text


def test_an_error_behind_the_first_pieces_is_the_streams_last_event() -> None:
    class Full(ScriptedProvider):
        async def chat_stream(
            self, request: ChatCompletionRequest
        ) -> AsyncIterator[ChatCompletionChunk]:
            async for chunk in super().chat_stream(request):
                yield chunk
            raise RateLimited("4 requests wait already")

    with serving(Full(["abcdefgh"])) as served:
        lines = served.post("chat/completions", json={"messages": HELLO, "stream": True}).text
    last = [line for line in lines.split("\n\n") if line][-1]  # an error, and no [DONE]
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "rate_limit_exceeded"


def test_chains_are_served_with_the_text_that_their_gguf_model_completes(served: Served) -> None:
    class Borrowed(LLMProvider):
        """The session's model, which this test's server must not close."""

        def __init__(self) -> None:
            for name in ("name", "chat", "chat_stream", "complete_stream", "status", "load"):
                setattr(self, name, getattr(served.provider, name))

        def name(self) -> str: ...  # type: ignore[empty-body]
        async def chat(self, request: Any) -> Any: ...

    failing = ScriptedProvider([NetworkError("gone")], model="far")
    chain = FallbackChain([failing, RetryingProvider(Borrowed(), LLMRetryPolicy())])
    with serving(chain) as chained:
        names = [model["id"] for model in chained.get("v1/models").json()["data"]]
        assert names == ["far", "tiny-tools"]
        body = {"prompt": "abc", "max_tokens": 4, "ignore_eos": True}
        ours = chained.post("completions", json=body).json()["choices"]
        assert ours == served.post("completions", json=body).json()["choices"]
        asked = {"messages": HELLO, "max_tokens": 4, "ignore_eos": True}
        answer = chained.post("chat/completions", json=asked).json()
        assert answer["model"] == "tiny-tools"
        page = chained.get("metrics").text
        assert 'mofa_gguf_chain_fallbacks_total{chain="fallback-chain"} 1' in page
        assert 'mofa_gguf_generated_tokens_total{model="tiny-tools"}' in page


def test_a_provider_that_completes_no_text_says_so() -> None:
    with serving(ScriptedProvider()) as served:
        for stream in (False, True):
            answer = served.post("completions", json={"prompt": "abc", "stream": stream})
            assert answer.status_code == 501
            assert "use /v1/chat/completions" in answer.json()["error"]["message"]


SAMPLE = re.compile(r'[a-z_]+(\{([a-z]+="[^"\n]*",?)+\})? -?[0-9.e+-]+')


def test_metrics_are_in_prometheus_format(served: Served) -> None:
    served.post("chat/completions", json={"messages": HELLO, "max_tokens": 3})
    served.get("v1/made/up")
    answer = served.get("metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    kinds: dict[str, str] = {}
    for line in answer.text.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split()
            assert name not in kinds  # the samples of a metric stand together
            kinds[name] = kind
        elif not line.startswith("#"):
            assert SAMPLE.fullmatch(line), line
            assert line.split("{")[0].split(" ")[0] in kinds
    assert kinds["mofa_gguf_requests_total"] == "counter"
    assert 'route="other",status="404"' in answer.text
    assert "mofa_gguf_http_requests_in_progress 1" in answer.text  # this one
    assert 'mofa_gguf_model_loaded{model="tiny-tools"} 1' in answer.text


@pytest.mark.parametrize(("shutdown_s", "whole"), [(10, True), (1, False)])
def test_a_stream_gets_to_its_end_when_the_server_stops_or_is_cancelled(
    shutdown_s: int, whole: bool
) -> None:
    provider = ScriptedProvider(["word " * 40], delay_s=0.04, chunk_chars=5)
    got: list[str] = []

    def ask(served: Served) -> None:
        try:
            body = {"messages": HELLO, "stream": True}
            with httpx.stream("POST", f"{served.url}/chat/completions", json=body) as answer:
                got.extend(answer.iter_lines())
        except httpx.HTTPError as error:
            got.append(type(error).__name__)

    with serving(provider, shutdown_s=shutdown_s) as served:
        thread = threading.Thread(target=ask, args=(served,))
        thread.start()
        eventually(lambda: provider.n_open_streams == 1)
        started = time.monotonic()
    thread.join(10)
    assert time.monotonic() - started < shutdown_s + 5
    assert provider.closed
    assert provider.n_cancelled == (not whole)
    assert ("data: [DONE]" in got) is whole
